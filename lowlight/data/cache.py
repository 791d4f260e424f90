"""Decoded pairs: dark frames packed, and their truths, as arrays a training reads windows of.

A cache is a folder with `index.json`, `frames/*.npy` (uint16 `[h, w, 4]`: R, G1, B, G2, 65535 = white, red-origin)
and `truths/*.npy` (uint16 `[h, w, 3]` encoded). Planes lie last, so that a window touches few pages of the file.
The fixed point of a frame differs from `pack()` by at most half a step, 0.5 / 65535, an eighth of a 14-bit DN;
what lies above white is clipped.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.config import from_dict, parse_json, to_dict
from lowlight.core.errors import ConfigError, DataError
from lowlight.core.hashing import file_sha256
from lowlight.core.photo import RGGB, CfaPattern, Metadata, PerColour, RawFrame
from lowlight.data.decoding import SCALE, Pixels, TruthSize, unpack
from lowlight.data.pairs import Pair, PairRow

FORMAT = 1
INDEX = "index.json"
FRAMES, TRUTHS = "frames", "truths"
ARRAY_FILE = re.compile(rf"(?:{FRAMES}|{TRUTHS})/[^/\\\0]+\.npy")
NPY_HEADER_BYTES = 128


@dataclass(frozen=True)
class SourceFile:
    """The file something was decoded from. `path` is relative to the data set where it lies inside."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class FrameRecord:
    """A packed dark frame and what its file said. `wb` has green = 1; `size` is the mosaic's, in sensor pixels."""

    file: str  # relative to the cache
    sha256: str
    shape: tuple[int, int, int]
    source: SourceFile
    size: tuple[int, int]
    pattern: CfaPattern
    black: PerColour
    white: PerColour
    wb: PerColour
    wb_source: str
    camera_to_srgb: tuple[tuple[float, float, float], ...] | None = None
    exposure_s: float | None = None
    iso: float | None = None
    camera: str | None = None

    def __post_init__(self) -> None:
        if min(*self.shape, *self.size) < 1:
            raise ConfigError(f"a frame has the size {self.size} and an array of {self.shape}; expected at least 1")
        if sorted(colour for row in self.pattern for colour in row) != [0, 1, 2, 3]:
            raise ConfigError(f"a colour filter pattern is {self.pattern}; expected R, G1, B and G2, 0 to 3, once each")

    def outline(self) -> RawFrame:
        """Give the frame without its pixels: a mosaic of zeros that takes no memory."""
        return RawFrame(
            mosaic=np.broadcast_to(np.zeros((), np.uint16), self.size),
            pattern=self.pattern,
            black=self.black,
            white=self.white,
            wb=self.wb,
            wb_source=self.wb_source,
            camera_to_srgb=self.matrix,
            metadata=Metadata(exposure_s=self.exposure_s, iso=self.iso, model=self.camera),
        )

    @property
    def matrix(self) -> npt.NDArray[np.float32] | None:
        """Balanced linear camera colour to linear sRGB `[3, 3]`, None where unknown."""
        return None if self.camera_to_srgb is None else np.array(self.camera_to_srgb, np.float32)


@dataclass(frozen=True)
class TruthRecord:
    """A bright picture at half or full size."""

    file: str
    sha256: str
    shape: tuple[int, int, int]
    source: SourceFile
    exposure_s: float | None = None

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ConfigError(f"a truth has an array of {self.shape}; expected at least 1 along each axis")


@dataclass(frozen=True)
class CachedPair:
    """A dark frame and its truth, by their numbers in the index."""

    frame: int
    truth: int
    ratio: float
    scene: str = ""
    split: str = ""
    iso: float | None = None
    burst_index: int = 0

    def __post_init__(self) -> None:
        if not (self.ratio > 0 and math.isfinite(self.ratio)):
            raise ConfigError(f"a ratio is {self.ratio}; expected a number above 0")


@dataclass(frozen=True)
class CacheIndex:
    """What `index.json` holds. `truth_size` and `levels` hold for the whole cache."""

    format: int
    truth_size: TruthSize
    levels: str  # name of the pinned black and white level, "" for the files' own
    versions: dict[str, str]
    frames: tuple[FrameRecord, ...]
    truths: tuple[TruthRecord, ...]
    pairs: tuple[CachedPair, ...]
    failed: dict[str, str] = field(default_factory=dict)  # files that could not be decoded, and why

    def __post_init__(self) -> None:
        records: tuple[FrameRecord | TruthRecord, ...] = (*self.frames, *self.truths)
        for record in records:
            require_own(record)
        for pair in self.pairs:
            if not (0 <= pair.frame < len(self.frames) and 0 <= pair.truth < len(self.truths)):
                raise ConfigError(f"arrays {pair.frame} and {pair.truth} are named as a pair, which are not there")


class PairCache:
    """An opened cache. Every call maps its file anew and lets go of it, so memory does not grow with the set."""

    def __init__(self, folder: Path, index: CacheIndex) -> None:
        self.folder, self.index = folder, index
        self.truth_size: TruthSize = index.truth_size
        self._rows = [self._row(pair) for pair in index.pairs]

    @property
    def rows(self) -> list[PairRow]:
        """The pairs, with the paths they were decoded from."""
        return self._rows

    def record(self, index: int) -> FrameRecord:
        """What is known of the dark frame of a pair."""
        return self.index.frames[self.index.pairs[index].frame]

    def ratio(self, index: int) -> float:
        """Give the amplification of a pair."""
        return self.index.pairs[index].ratio

    def frame(self, index: int) -> Pixels:
        """Map the packed dark frame of a pair, `[h, w, 4]`."""
        return _map(self.folder, self.record(index))

    def truth(self, index: int) -> Pixels:
        """Map the truth of a pair, `[h, w, 3]`, or `[2h, 2w, 3]` at full size."""
        return _map(self.folder, self.index.truths[self.index.pairs[index].truth])

    def digest(self) -> str:
        """Hash what the pairs were decoded from into a short text."""
        frames, truths = self.index.frames, self.index.truths
        return digest_of((frames[p.frame].source.sha256, truths[p.truth].source.sha256) for p in self.index.pairs)

    def only(self, rows: Sequence[PairRow]) -> "PairCache":
        """Make a cache of some of the pairs, in the same order."""
        kept = {id(row) for row in rows}  # two pairs may look the same
        pairs = tuple(p for p, row in zip(self.index.pairs, self._rows, strict=True) if id(row) in kept)
        index = self.index
        return PairCache(
            self.folder,
            CacheIndex(index.format, index.truth_size, index.levels, index.versions, index.frames, index.truths, pairs),
        )

    def pair(self, index: int) -> Pair:
        """Give a pair as evaluation takes it: the frame as an RGGB mosaic of black 0 and white 65535."""
        row = self._rows[index]
        frame = replace(
            self.record(index).outline(),
            mosaic=unpack(np.array(self.frame(index))),
            pattern=RGGB,
            black=(0.0,) * 4,
            white=(float(SCALE),) * 4,
        )
        return Pair(row.dark.name, row.scene, frame, np.array(self.truth(index)), self.ratio(index))

    def _row(self, pair: CachedPair) -> PairRow:
        frame, truth = self.index.frames[pair.frame], self.index.truths[pair.truth]
        return PairRow(
            dark=Path(frame.source.path),
            bright=Path(truth.source.path),
            scene=pair.scene,
            split=pair.split,
            ratio=pair.ratio,
            iso=pair.iso,
            burst_index=pair.burst_index,
            dark_s=frame.exposure_s,
            bright_s=truth.exposure_s,
        )


def require_own(record: FrameRecord | TruthRecord) -> None:
    """Refuse a record of a file that is not the cache's own, which would be read, or removed, for it: `ConfigError`."""
    if not ARRAY_FILE.fullmatch(record.file):
        raise ConfigError(f"an array lies in {record.file!r}; expected NAME.npy in {FRAMES} or {TRUTHS}")


def is_cache(path: Path) -> bool:
    """Whether `path` is a finished cache."""
    return (path / INDEX).is_file()


def open_cache(folder: Path) -> PairCache:
    """Open a finished cache; `DataError` where its index is no such thing or a file is missing or cut short."""
    path = folder / INDEX
    try:
        index = from_dict(CacheIndex, parse_json(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; make the cache with `lowlight cache`") from error
    except (ValueError, ConfigError) as error:
        raise DataError(f"{path} is no index of a cache ({error}); make the cache again") from error
    if index.format != FORMAT:
        raise DataError(f"{folder} is a cache of format {index.format}, this version reads {FORMAT}; make it again")
    records: tuple[FrameRecord | TruthRecord, ...] = (*index.frames, *index.truths)
    for record in records:
        if not is_whole(folder, record):
            raise DataError(
                f"{record.file} of the cache {folder} is missing or cut short; the `lowlight cache` command that made "
                "it repairs it"
            )
    if not index.pairs:
        raise DataError(f"the cache {folder} holds no pairs; none of its files could be decoded")
    return PairCache(folder, index)


def index_json(index: CacheIndex) -> str:
    """An index as the text of `index.json`."""
    return json.dumps(to_dict(index), ensure_ascii=False, allow_nan=False) + "\n"


def is_whole(folder: Path, record: FrameRecord | TruthRecord) -> bool:
    """Whether a decoded file is there with the right number of bytes."""
    try:
        return (folder / record.file).stat().st_size == npy_bytes(record.shape)
    except OSError:
        return False


def npy_bytes(shape: Sequence[int]) -> int:
    """Bytes of a uint16 array of this shape in a .npy file."""
    return NPY_HEADER_BYTES + 2 * int(np.prod(shape))


def source_file(path: Path, shown: str) -> SourceFile:
    """Identify a file by size, time and contents; `shown` is the path to record."""
    status = path.stat()
    return SourceFile(shown, status.st_size, status.st_mtime_ns, file_sha256(path))


def digest_of(pairs: Iterable[tuple[str, str]]) -> str:
    """Hash the hashes of pairs of files into a short text."""
    total = hashlib.sha256()
    for dark, bright in pairs:
        total.update(f"{dark} {bright}\n".encode())
    return total.hexdigest()[:16]


def frame_record(file: str, sha256: str, stored: Pixels, frame: RawFrame, source: SourceFile) -> FrameRecord:
    """Write down a decoded frame."""
    matrix = frame.camera_to_srgb
    height, width, planes = stored.shape
    return FrameRecord(
        file=file,
        sha256=sha256,
        shape=(height, width, planes),
        source=source,
        size=frame.size,
        pattern=frame.pattern,
        black=frame.black,
        white=frame.white,
        wb=frame.wb,
        wb_source=frame.wb_source,
        camera_to_srgb=None if matrix is None else tuple((float(a), float(b), float(c)) for a, b, c in matrix),
        exposure_s=frame.metadata.exposure_s,
        iso=frame.metadata.iso,
        camera=frame.metadata.camera,
    )


def _map(folder: Path, record: FrameRecord | TruthRecord) -> Pixels:
    try:
        array: Pixels = np.load(folder / record.file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{record.file} of the cache {folder} cannot be read ({error}); make the cache again"
        ) from error
    if array.shape != record.shape or array.dtype != np.uint16:
        raise DataError(f"{record.file} of the cache {folder} is another array than its index says; make it again")
    return array
