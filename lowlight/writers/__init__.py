"""Pictures on disk: one writer per suffix, one way to write.

Encoders load inside the functions that use them, so that naming a format costs nothing.
"""

from dataclasses import replace
from pathlib import Path

from lowlight.core.atomic import is_leftover, replacing
from lowlight.core.errors import OutputError, UsageError
from lowlight.core.photo import Picture
from lowlight.writers.jpeg import write_jpeg
from lowlight.writers.jxl import write_jxl
from lowlight.writers.linear_dng import write_linear_dng
from lowlight.writers.options import Writer, WriterOptions
from lowlight.writers.png import write_png
from lowlight.writers.tiff import write_tiff

__all__ = ["WRITERS", "Writer", "WriterOptions", "is_leftover", "replacing", "write_picture", "writer_for"]

WRITERS: dict[str, Writer] = {
    ".png": Writer(write_png, bits=(8, 16)),
    ".tif": Writer(write_tiff, bits=(8, 16)),
    ".tiff": Writer(write_tiff, bits=(8, 16)),
    ".jpg": Writer(write_jpeg, bits=(8,)),
    ".jpeg": Writer(write_jpeg, bits=(8,)),
    ".jxl": Writer(write_jxl, bits=(8, 16)),
    ".dng": Writer(write_linear_dng, bits=(16,), needs_linear=True),
}


def writer_for(path: Path, options: WriterOptions | None = None) -> Writer:
    """Find the writer of the format that `path`'s suffix names, in either case.

    Worth a call before any work is done: raises UsageError for a suffix that is not known and for a depth the
    format does not have.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UsageError(
            f"{path.name} names no picture format that can be written; the suffixes are {', '.join(WRITERS)}."
        )
    if options is not None and options.bits is not None and options.bits not in writer.bits:
        depths = " or ".join(str(bits) for bits in writer.bits)
        raise UsageError(
            f"{path.suffix.lower()} pictures have {depths} bits per channel, not {options.bits}; "
            "choose another depth or format."
        )
    return writer


def write_picture(path: Path, picture: Picture, options: WriterOptions | None = None) -> None:
    """Write `picture` to `path` in the format of its suffix; `path` appears whole or not at all.

    An existing file is replaced. Equal pictures give equal bytes. Safe to call from several threads; the
    encoders release the GIL. Raises UsageError for a suffix or depth that does not exist and OutputError
    where the disk refuses.
    """
    options = options or WriterOptions()
    writer = writer_for(path, options)
    pixels = picture.pixels
    assert pixels.dtype == "uint16" and pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.size
    try:
        with replacing(path) as temporary:
            writer.write(temporary, picture, replace(options, bits=options.bits or max(writer.bits)))
    except OSError as error:
        # NumPy tells a write that came to nothing by two numbers alone.
        reason = error.strerror or ("the disk takes no more" if "requested and" in str(error) else str(error))
        raise OutputError(f"{path} could not be written: {reason}.") from error
