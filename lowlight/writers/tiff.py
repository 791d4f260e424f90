"""TIFF with 8 or 16 bits: compressed behind the horizontal predictor, with profile, EXIF and GPS directories."""

from pathlib import Path

import numpy as np

from lowlight.core.photo import Picture
from lowlight.writers.depth import to_uint8
from lowlight.writers.exif import exif_tags
from lowlight.writers.icc import srgb_profile
from lowlight.writers.ifd import append_tags
from lowlight.writers.options import WriterOptions

_STRIP_BYTES = 1 << 20


def write_tiff(path: Path, picture: Picture, options: WriterOptions) -> None:
    """Write `picture.pixels` with 8 or 16 bits per channel, lossless at 16, and all metadata, to `path`."""
    import tifffile

    pixels = to_uint8(picture.pixels) if options.bits == 8 else picture.pixels
    channels, plain = pixels.shape[2], options.compression == "none"
    row_bytes = pixels.shape[1] * channels * pixels.itemsize
    tifffile.imwrite(
        path,
        np.ascontiguousarray(pixels if channels == 3 else pixels[..., 0]),
        byteorder="<",
        photometric="rgb" if channels == 3 else "minisblack",
        planarconfig="contig" if channels == 3 else None,
        compression=None if plain else options.compression,
        compressionargs=None if plain else {"level": 1},
        predictor=not plain,
        rowsperstrip=max(1, _STRIP_BYTES // row_bytes),
        iccprofile=srgb_profile(channels),
        metadata=None,
        maxworkers=1,  # photos are already written side by side
    )
    tags = exif_tags(picture, sized=False)
    append_tags(path, tags.main, tags.exif, tags.gps)
