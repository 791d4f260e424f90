"""A collection of clean photographs to make training pairs from: a folder, or one packed file.

A packed file is a plain zip without compression: JPEG files under `photos/`, validation pairs under `pairs/` as numpy
archives, and `contents.json`. Reading it needs Pillow and numpy only.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
HELD_OUT_SHARE = 16  # one photo in this many is kept aside
MIN_SIDE_PX = 256


class PhotoSet:
    """Clean photographs by name, decoded when first asked for and then kept (uint8 `[H, W, 3]`, sRGB)."""

    def __init__(self, readers: dict[str, Callable[[], bytes]], source: Path) -> None:
        self.names = sorted(readers)
        self.source = source
        self._readers = readers
        self._decoded: dict[str, npt.NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        name = self.names[index]
        if name not in self._decoded:
            self._decoded[name] = decode_photo(self._readers[name](), name)
        return self._decoded[name]

    def bytes_of(self, name: str) -> bytes:
        """The file as it is stored."""
        return self._readers[name]()

    def scattered_names(self) -> list[str]:
        """All names in an order that does not follow the alphabet, the same on every machine."""
        return sorted(self.names, key=lambda name: hashlib.sha256(name.encode()).digest())

    def digest(self) -> str:
        """A short hash over all names and contents, to record what trained a model."""
        total = hashlib.sha256()
        for name in self.names:
            total.update(name.encode())
            total.update(hashlib.sha256(self._readers[name]()).digest())
        return total.hexdigest()[:16]

    def split(self) -> tuple["PhotoSet", "PhotoSet"]:
        """Photos for training, and the ones kept aside; decided by each name alone."""
        kept = {name: read for name, read in self._readers.items() if not is_held_out(name)}
        aside = {name: read for name, read in self._readers.items() if is_held_out(name)}
        return PhotoSet(kept, self.source), PhotoSet(aside, self.source)


def is_held_out(name: str) -> bool:
    """Whether the photo called `name` is kept out of training."""
    stem = Path(name).stem.lower()
    return hashlib.sha256(stem.encode()).digest()[0] % HELD_OUT_SHARE == 0


def decode_photo(content: bytes, name: str) -> npt.NDArray[np.uint8]:
    """An encoded photo as uint8 `[H, W, 3]` sRGB."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{name} cannot be read as a photo ({error}); remove it from the collection") from error


def open_photos(source: Path) -> PhotoSet:
    """The photographs of a folder (searched deeply) or of a packed file."""
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
        if not files:
            raise DataError(f"{source} holds no photos; expected {', '.join(PHOTO_SUFFIXES)} files")
        return PhotoSet({str(p.relative_to(source)): p.read_bytes for p in files}, source)
    if not source.is_file():
        raise DataError(f"{source} does not exist; give a folder of photos or a packed file")
    if not zipfile.is_zipfile(source):
        raise DataError(f"{source} is no packed file; make one with `lowlight pack`")
    with zipfile.ZipFile(source) as archive:
        names = [n for n in archive.namelist() if n.startswith("photos/")]
    if not names:
        raise DataError(f"{source} holds no photos; pack it again with `lowlight pack`")
    return PhotoSet({n.removeprefix("photos/"): _member_reader(source, n) for n in names}, source)


def _member_reader(source: Path, member: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with zipfile.ZipFile(source) as archive:
            return archive.read(member)

    return read
