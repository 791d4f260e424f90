"""A collection of clean photographs to make training pairs from: a folder, or one packed file.

A packed file is a plain zip without compression: photos under `photos/`, validation pairs under `pairs/` as
numpy archives, and `contents.json`. Reading it needs Pillow and numpy only.
"""

import hashlib
import io
import logging
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError
from lowlight.data.archives import Archive

logger = logging.getLogger(__name__)

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
HELD_OUT_SHARE = 16  # one photo in this many is kept aside
KEPT_BYTES = 3 << 30  # of decoded photos; beyond it they are decoded every time


class PhotoSet:
    """Clean photographs by name, decoded when first asked for (uint8 `[H, W, 3]`, sRGB).

    Decoded photos are kept until they take `keep_bytes`, so that a large collection does not fill the memory.
    `upright` photos are turned as their tags say, which matters where "up" does.
    """

    def __init__(
        self,
        readers: dict[str, Callable[[], bytes]],
        source: Path,
        *,
        upright: bool = False,
        keep_bytes: int = KEPT_BYTES,
    ) -> None:
        self.names = sorted(readers)
        self.source, self.upright, self.keep_bytes = source, upright, keep_bytes
        self._readers = readers
        self._decoded: dict[str, npt.NDArray[np.uint8]] = {}
        self._kept_bytes = 0
        self._unreadable: set[int] = set()
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        name = self.names[index]
        if name in self._decoded:
            return self._decoded[name]
        photo = decode_photo(self.bytes_of(name), name, upright=self.upright)
        if self._kept_bytes + photo.nbytes <= self.keep_bytes:
            self._decoded[name] = photo
            self._kept_bytes += photo.nbytes
        return photo

    def readable(self, wanted: int) -> npt.NDArray[np.uint8]:
        """Give the wanted photo, or the next one that can be read: one bad file must not end a long training."""
        for offset in range(len(self)):
            index = (wanted + offset) % len(self)
            if index in self._unreadable:
                continue
            try:
                return self[index]
            except DataError as error:
                logger.warning("%s; another photo takes its place", error)
                self._unreadable.add(index)
        raise DataError(f"none of the {len(self)} photos in {self.source} can be read")

    def bytes_of(self, name: str) -> bytes:
        """Read the file as it is stored; `DataError` where that cannot be done."""
        try:
            return self._readers[name]()
        except OSError as error:
            raise DataError(f"{name} in {self.source} cannot be read: {error.strerror or error}") from error

    def scattered_names(self) -> list[str]:
        """List the names in an order that does not follow the alphabet, the same on every machine."""
        return sorted(self.names, key=lambda name: hashlib.sha256(name.encode()).digest())

    def digest(self) -> str:
        """Hash all names and contents into a short text that records what trained a model."""
        if self._digest is None:
            total = hashlib.sha256()
            for name in self.names:
                total.update(name.encode())
                with suppress(DataError):  # said when its turn to train comes
                    total.update(hashlib.sha256(self.bytes_of(name)).digest())
            self._digest = total.hexdigest()[:16]
        return self._digest

    def only(self, names: Iterable[str]) -> "PhotoSet":
        """Make a set of some of the photos."""
        readers = {name: self._readers[name] for name in names}
        return PhotoSet(readers, self.source, upright=self.upright, keep_bytes=self.keep_bytes)

    def split(self) -> tuple["PhotoSet", "PhotoSet"]:
        """Part the photos for training from the ones kept aside; decided by each name alone."""
        aside = [name for name in self.names if is_held_out(name)]
        return self.only(set(self.names) - set(aside)), self.only(aside)


def is_held_out(name: str) -> bool:
    """Whether the photo called `name` is kept out of training; folder and suffix do not matter."""
    stem = Path(name).stem.lower()
    return hashlib.sha256(stem.encode()).digest()[0] % HELD_OUT_SHARE == 0


def decode_photo(content: bytes, name: str, *, upright: bool = False) -> npt.NDArray[np.uint8]:
    """Decode a photo to uint8 `[H, W, 3]` sRGB, turned `upright` where its tags say how and can be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as image:
            if upright:
                image.load()
                with suppress(OSError, SyntaxError, ValueError, IndexError, KeyError, TypeError, struct.error):
                    ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # 16 bits of gray, which conversion would clip and not scale
                gray = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
                return np.repeat(gray[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    # Pillow's decoders raise all of these on files that are broken or larger than any photo.
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be read as a photo; remove it from the collection") from error


def open_photos(source: Path, *, upright: bool = False, keep_bytes: int = KEPT_BYTES) -> PhotoSet:
    """Find the photographs of a folder (searched deeply) or of a packed file; options are those of `PhotoSet`."""
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file())
        if not files:
            raise DataError(f"{source} holds no photos; expected {', '.join(PHOTO_SUFFIXES)} files")
        readers: dict[str, Callable[[], bytes]] = {_name(p.relative_to(source)): p.read_bytes for p in files}
        return PhotoSet(readers, source, upright=upright, keep_bytes=keep_bytes)
    if not source.is_file():
        raise DataError(f"{source} does not exist; give a folder of photos or a packed file")
    archive = Archive(source)
    names = archive.names("photos/")
    if not names:
        raise DataError(f"{source} holds no photos; pack it again with `lowlight pack`")
    readers = {name.removeprefix("photos/"): partial(archive.read, name) for name in names}
    return PhotoSet(readers, source, upright=upright, keep_bytes=keep_bytes)


def _name(path: Path) -> str:
    """What a photo is called: text that can be hashed and packed, though not all file names are UTF-8."""
    return path.as_posix().encode("utf-8", "xmlcharrefreplace").decode("utf-8")
