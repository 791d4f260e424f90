"""A collection of clean photographs to make training pairs from: a folder, or one packed file.

A packed file is a plain zip without compression: photos under `photos/`, validation pairs under `pairs/` as
numpy archives, and `contents.json`. Reading it needs Pillow and numpy only.
"""

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
HELD_OUT_SHARE = 16  # one photo in this many is kept aside
KEPT_BYTES = 3 << 30  # of decoded photos; beyond it they are decoded every time


class PhotoSet:
    """Clean photographs by name, decoded when first asked for (uint8 `[H, W, 3]`, sRGB).

    Decoded photos are kept until they take 3 GiB, so that a large collection does not fill the memory.
    """

    def __init__(self, readers: dict[str, Callable[[], bytes]], source: Path) -> None:
        self.names = sorted(readers)
        self.source = source
        self._readers = readers
        self._decoded: dict[str, npt.NDArray[np.uint8]] = {}
        self._kept_bytes = 0
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        name = self.names[index]
        if name in self._decoded:
            return self._decoded[name]
        photo = decode_photo(self._readers[name](), name)
        if self._kept_bytes + photo.nbytes <= KEPT_BYTES:
            self._decoded[name] = photo
            self._kept_bytes += photo.nbytes
        return photo

    def bytes_of(self, name: str) -> bytes:
        """Read the file as it is stored."""
        return self._readers[name]()

    def scattered_names(self) -> list[str]:
        """List the names in an order that does not follow the alphabet, the same on every machine."""
        return sorted(self.names, key=lambda name: hashlib.sha256(name.encode()).digest())

    def digest(self) -> str:
        """Hash all names and contents into a short text that records what trained a model."""
        if self._digest is None:
            total = hashlib.sha256()
            for name in self.names:
                total.update(name.encode())
                total.update(hashlib.sha256(self._readers[name]()).digest())
            self._digest = total.hexdigest()[:16]
        return self._digest

    def only(self, names: Iterable[str]) -> "PhotoSet":
        """Make a set of some of the photos."""
        return PhotoSet({name: self._readers[name] for name in names}, self.source)

    def split(self) -> tuple["PhotoSet", "PhotoSet"]:
        """Part the photos for training from the ones kept aside; decided by each name alone."""
        aside = [name for name in self.names if is_held_out(name)]
        return self.only(set(self.names) - set(aside)), self.only(aside)


def is_held_out(name: str) -> bool:
    """Whether the photo called `name` is kept out of training; folder and suffix do not matter."""
    stem = Path(name).stem.lower()
    return hashlib.sha256(stem.encode()).digest()[0] % HELD_OUT_SHARE == 0


def decode_photo(content: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decode a photo to uint8 `[H, W, 3]` sRGB."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    # Pillow's decoders raise all of these on files that are broken or larger than any photo.
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be read as a photo; remove it from the collection") from error


def open_photos(source: Path) -> PhotoSet:
    """Find the photographs of a folder (searched deeply) or of a packed file."""
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file())
        if not files:
            raise DataError(f"{source} holds no photos; expected {', '.join(PHOTO_SUFFIXES)} files")
        return PhotoSet({_name(p.relative_to(source)): p.read_bytes for p in files}, source)
    if not source.is_file():
        raise DataError(f"{source} does not exist; give a folder of photos or a packed file")
    if not zipfile.is_zipfile(source):
        raise DataError(f"{source} is no packed file; make one with `lowlight pack`")
    with zipfile.ZipFile(source) as archive:
        names = [n for n in archive.namelist() if n.startswith("photos/")]
    if not names:
        raise DataError(f"{source} holds no photos; pack it again with `lowlight pack`")
    return PhotoSet({n.removeprefix("photos/"): _member_reader(source, n) for n in names}, source)


def _name(path: Path) -> str:
    """What a photo is called: text that can be hashed and packed, though not all file names are UTF-8."""
    return path.as_posix().encode("utf-8", "xmlcharrefreplace").decode("utf-8")


def _member_reader(source: Path, member: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with zipfile.ZipFile(source) as archive:
            return archive.read(member)

    return read
