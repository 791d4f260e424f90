"""What a caller may choose about a written picture, and what a format promises."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lowlight.core.errors import UsageError
from lowlight.core.photo import Picture

COMPRESSIONS = ("zstd", "deflate", "none")  # of TIFF


@dataclass(frozen=True)
class WriterOptions:
    """Choices for one written picture.

    `bits` per channel is 8, 16 or None for the deepest the format has. `quality` (1 to 100) steers JPEG and
    8-bit JPEG XL, which is lossless at 100; the other formats are lossless anyway. `compression` is that of TIFF:
    zstd is quick and small, deflate is what every program reads, none is quickest and large.
    """

    bits: int | None = None
    quality: int = 95
    compression: str = "zstd"

    def __post_init__(self) -> None:
        """Refuse values no format can take."""
        if self.bits not in (None, 8, 16):
            raise UsageError(f"A picture can have 8 or 16 bits per channel, not {self.bits}.")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"The quality is a number from 1 to 100, not {self.quality}.")
        if self.compression not in COMPRESSIONS:
            raise UsageError(f"TIFF has no compression {self.compression!r} here; there are {', '.join(COMPRESSIONS)}.")


@dataclass(frozen=True)
class Writer:
    """One file format.

    `write(path, picture, options)` writes straight to `path`, whose name may have any suffix. `bits` are the
    depths it can store. `needs_linear` says that it stores `Picture.linear` instead of the encoded pixels.
    """

    write: Callable[[Path, Picture, WriterOptions], None]
    bits: tuple[int, ...]
    needs_linear: bool = False
