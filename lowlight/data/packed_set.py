"""One compact file that holds all a training run needs: photos as they are, and validation pairs decoded.

Reading it needs numpy and Pillow only, so a machine without any RAW library can train from it.
"""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError
from lowlight.core.photo import RawFrame
from lowlight.data.pairs import Pair
from lowlight.data.photos import PhotoSet
from lowlight.ops.resize import mean_of_blocks

FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # so that the same contents give the same file


def write_packed_set(path: Path, photos: PhotoSet, pairs: list[Pair], limit_bytes: int | None = None) -> dict[str, int]:
    """Write photos and half-size pairs into one file; returns counts and bytes.

    With a limit, photos are taken in an order that depends on their names alone until the file would grow past it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    taken = 0
    with zipfile.ZipFile(temporary, "w") as archive:
        for pair in pairs:
            _add(archive, f"pairs/{pair.name}.npz", _pair_bytes(pair))
        for name in photos.scattered_names():
            content = photos.bytes_of(name)
            if limit_bytes and archive.fp and archive.fp.tell() + len(content) > limit_bytes:
                continue
            _add(archive, f"photos/{name}", content)
            taken += 1
        contents = {"photos": taken, "pairs": len(pairs), "photo_set": photos.digest()}
        _add(archive, "contents.json", json.dumps(contents).encode())
    os.replace(temporary, path)
    return {"photos": taken, "pairs": len(pairs), "bytes": path.stat().st_size}


def read_packed_pairs(path: Path) -> list[Pair]:
    """The validation pairs of a packed file."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no packed file; make one with `lowlight pack`")
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("pairs/"))
        return [_read_pair(archive.read(name)) for name in names]


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, FIXED_TIME), content)


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
        black, white, wb = (tuple(map(float, row)) for row in stored["levels"])
        pattern = tuple(tuple(map(int, row)) for row in stored["pattern"])
        matrix = stored["matrix"]
        frame = RawFrame(
            mosaic=stored["mosaic"],
            pattern=pattern,  # type: ignore[arg-type]
            black=black,  # type: ignore[arg-type]
            white=white,  # type: ignore[arg-type]
            wb=wb,  # type: ignore[arg-type]
            wb_source=about["wb_source"],
            camera_to_srgb=matrix if len(matrix) else None,
        )
        return Pair(about["name"], about["scene"], frame, stored["truth"], about["ratio"])


def half_truth(pair: Pair) -> npt.NDArray[np.uint16]:
    """The truth at half the sensor's size, averaging encoded values where it is stored at full size."""
    truth = pair.truth
    if truth.shape[0] < pair.frame.size[0] // 2 * 2:
        return truth
    return mean_of_blocks(truth)
