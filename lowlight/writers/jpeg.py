"""JPEG: 8 bits, colour at full resolution (4:4:4)."""

import io
from pathlib import Path

from lowlight.core.errors import OutputError
from lowlight.core.photo import Picture
from lowlight.writers.depth import to_uint8
from lowlight.writers.exif import exif_blob
from lowlight.writers.icc import srgb_profile
from lowlight.writers.options import WriterOptions

_LARGEST_SIDE = 65500  # of libjpeg


def write_jpeg(path: Path, picture: Picture, options: WriterOptions) -> None:
    """Write `picture.pixels` rounded to 8 bits, at `options.quality`, with all metadata, to `path`."""
    import imageio.v3 as iio

    height, width, channels = picture.pixels.shape
    if max(height, width) > _LARGEST_SIDE:
        raise OutputError(
            f"A JPEG has at most {_LARGEST_SIDE} pixels a side and this picture is {width}x{height}; write PNG or TIFF."
        )
    pixels = to_uint8(picture.pixels)
    encoded = io.BytesIO()  # into a file Pillow writes as much as the disk takes, and says nothing
    iio.imwrite(
        encoded,
        pixels if channels == 3 else pixels[..., 0],
        plugin="pillow",
        extension=".jpg",
        is_batch=False,
        quality=options.quality,
        subsampling=0,
        icc_profile=srgb_profile(channels),
        exif=exif_blob(picture, jpeg=True),
    )
    path.write_bytes(encoded.getbuffer())
