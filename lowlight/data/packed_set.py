"""One compact file that holds all a training run needs: photos as they are, and validation pairs decoded.

Reading it needs numpy and Pillow only, so a machine without any RAW library can train from it.
"""

import io
import json
import logging
import math
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.core.atomic import remove_leftovers, replacing
from lowlight.core.errors import DataError, OutputError
from lowlight.core.photo import RawFrame
from lowlight.data.archives import UNREADABLE, Archive
from lowlight.data.pairs import Pair
from lowlight.data.photos import PhotoSet, decode_photo, is_held_out
from lowlight.ops.resize import mean_of_blocks

logger = logging.getLogger(__name__)

FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # so that the same contents give the same file
ENTRY_BYTES = 30 + 46  # what a zip spends on a member beside its content and twice its name
END_BYTES = 22 + 200  # the zip's end, and contents.json
MIN_SIDE_PX = 256  # smaller photos would only be blown up

ReadPair = Callable[[], Pair]


def write_packed_set(
    path: Path, photos: PhotoSet, pairs: Iterable[Pair], limit_bytes: int | None = None
) -> dict[str, int]:
    """Write photos and half-size pairs into one file; returns what it holds, by name, and its bytes.

    With a limit, photos are taken in an order that depends on their names alone, as long as the file stays within
    it. Photos that cannot be decoded or are smaller than 256 pixels are left out. The same contents give the same
    bytes. Raises `DataError` where the pairs alone pass the limit or no photo is left, `OutputError` where the disk
    takes no more.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers([path])
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            counts = _write_members(archive, photos, pairs, limit_bytes)
    except OSError as error:
        if error.filename:  # a file that was to be opened; writing to one that is open tells no name
            raise
        raise OutputError(f"{path} could not be written: {error.strerror or error}") from error
    return {**counts, "bytes": path.stat().st_size}


def _write_members(
    archive: zipfile.ZipFile, photos: PhotoSet, pairs: Iterable[Pair], limit_bytes: int | None
) -> dict[str, int]:
    size = END_BYTES
    members: set[str] = set()

    def add(name: str, content: bytes) -> None:
        nonlocal size
        archive.writestr(zipfile.ZipInfo(name, FIXED_TIME), content)
        members.add(name)
        size += _entry_bytes(name, content)

    count = 0
    for pair in pairs:
        member, copy = f"pairs/{pair.name}.npz", 1
        while member in members:  # frames of the same name in different folders
            copy += 1
            member = f"pairs/{pair.name}.{copy}.npz"
        add(member, _pair_bytes(pair))
        count += 1
    if limit_bytes and size > limit_bytes:
        raise DataError(f"the pairs alone take {size / 2**20:.1f} MiB; allow more with --max-mib, or pack fewer")
    taken, unusable = [], 0
    for name in photos.scattered_names():
        content = photos.bytes_of(name)
        if limit_bytes and size + _entry_bytes(f"photos/{name}", content) > limit_bytes:
            continue
        if not _usable(content, name):
            unusable += 1
            continue
        add(f"photos/{name}", content)
        taken.append(name)
    if not taken:
        raise DataError(f"no photo of {photos.source} can be packed; they are unreadable, tiny or over --max-mib")
    kept = photos.only(taken)
    contents = {"photos": len(taken), "pairs": count, "photo_set": kept.digest()}
    add("contents.json", json.dumps(contents).encode())
    return {
        "photos": len(taken),
        "held_out": sum(map(is_held_out, taken)),
        "left_out": len(photos) - len(taken) - unusable,
        "unusable": unusable,
        "pairs": count,
    }


def _entry_bytes(name: str, content: bytes) -> int:
    return ENTRY_BYTES + 2 * len(name.encode()) + len(content)


def _usable(content: bytes, name: str) -> bool:
    try:
        photo = decode_photo(content, name)
    except DataError as error:
        logger.warning("%s", error)
        return False
    if min(photo.shape[:2]) < MIN_SIDE_PX:
        logger.warning("%s is %dx%d, too small to learn from", name, photo.shape[1], photo.shape[0])
        return False
    return True


def packed_pair_readers(path: Path) -> list[ReadPair]:
    """Find the validation pairs of a packed file; each is read when its function is called."""
    archive = Archive(path)
    return [partial(_read_member, archive, name) for name in sorted(archive.names("pairs/"))]


def _read_member(archive: Archive, name: str) -> Pair:
    content = archive.read(name)
    try:
        return _read_pair(content)
    except (*UNREADABLE, RecursionError) as error:
        raise DataError(f"{name} in {archive.path} is no pair ({error}); pack the pairs again") from error


def _pair_bytes(pair: Pair) -> bytes:
    frame = pair.frame
    matrix = np.zeros((0, 3), np.float32) if frame.camera_to_srgb is None else frame.camera_to_srgb
    about = {"name": pair.name, "scene": pair.scene, "ratio": pair.ratio, "wb_source": frame.wb_source}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        mosaic=frame.mosaic,
        pattern=np.array(frame.pattern),
        levels=np.array([frame.black, frame.white, frame.wb]),
        matrix=matrix,
        truth=half_truth(pair),
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
    )
    return buffer.getvalue()


def _read_pair(content: bytes) -> Pair:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        about: dict[str, Any] = json.loads(bytes(stored["about"]))
        levels, mosaic, matrix, truth = (stored[name] for name in ("levels", "mosaic", "matrix", "truth"))
        ratio = float(about["ratio"])
        sound = (
            (mosaic.dtype, mosaic.ndim, truth.dtype, truth.shape[2:]) == (np.uint16, 2, np.uint16, (3,))
            and min(*mosaic.shape, *truth.shape) > 0
            and levels.shape == (3, 4)
            and bool(np.isfinite(levels).all() and (levels[1] > levels[0]).all())
            and matrix.shape in ((0, 3), (3, 3))
            and stored["pattern"].shape == (2, 2)
            and sorted(stored["pattern"].flat) == [0, 1, 2, 3]
            and ratio > 0
            and math.isfinite(ratio)
        )
        if not sound:
            raise ValueError("its arrays are not those of a pair")
        black, white, wb = (tuple(map(float, row)) for row in levels)
        pattern = tuple(tuple(map(int, row)) for row in stored["pattern"])
        frame = RawFrame(
            mosaic=mosaic,
            pattern=pattern,  # type: ignore[arg-type]
            black=black,  # type: ignore[arg-type]
            white=white,  # type: ignore[arg-type]
            wb=wb,  # type: ignore[arg-type]
            wb_source=about["wb_source"],
            camera_to_srgb=matrix if len(matrix) else None,
        )
        return Pair(str(about["name"]), str(about["scene"]), frame, truth, ratio)


def half_truth(pair: Pair) -> npt.NDArray[np.uint16]:
    """Give the truth at half the sensor's size, averaging encoded values where it is stored at full size."""
    truth = pair.truth
    if truth.shape[0] < pair.frame.size[0] // 2 * 2:
        return truth
    return mean_of_blocks(truth)
