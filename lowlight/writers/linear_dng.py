"""Linear DNG: the enhanced picture as scene light in camera colour, as a RAW editor can take it (DNG 1.4)."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.colorimetry import SRGB_TO_XYZ
from lowlight.core.errors import OutputError
from lowlight.core.photo import LinearImage, Picture
from lowlight.writers.exif import exif_tags
from lowlight.writers.ifd import (
    append_tags,
    ascii_entry,
    byte_entry,
    long_entry,
    rational_entry,
    short_entry,
    srational_entry,
)
from lowlight.writers.options import WriterOptions

_LINEAR_RAW = 34892
_D65_ILLUMINANT = 21
_NO_BLACK_RENDERING = 1
_DENOMINATOR = 1_000_000
_BAND_ROWS = 256


def write_linear_dng(path: Path, picture: Picture, options: WriterOptions) -> None:
    """Write `picture.linear` uncompressed, as camera colour before white balance, to `path`.

    `options` has no say. Uncompressed, because LibRaw reads no other integer linear DNG. The white balance is
    kept as AsShotNeutral, which an editor may change.
    """
    import tifffile

    linear = picture.linear
    if linear is None:
        raise OutputError("A linear DNG needs the linear picture, and there is only the encoded one; write TIFF.")
    tifffile.imwrite(
        path,
        _without_balance(linear),
        byteorder="<",
        photometric=_LINEAR_RAW,
        planarconfig="contig",
        metadata=None,
    )
    neutral = [Fraction(round(_DENOMINATOR / gain), _DENOMINATOR) for gain in linear.wb]
    matrix = [Fraction(round(float(v) * _DENOMINATOR), _DENOMINATOR) for v in colour_matrix(linear).flat]
    tags = exif_tags(picture, encoded=False, sized=False)
    dng = [
        byte_entry(50706, 1, 4, 0, 0),  # DNGVersion
        byte_entry(50707, 1, 1, 0, 0),  # DNGBackwardVersion
        ascii_entry(50708, picture.metadata.camera or "lowlight linear picture"),  # UniqueCameraModel
        short_entry(50714, 0, 0, 0),  # BlackLevel
        long_entry(50717, 65535, 65535, 65535),  # WhiteLevel
        srational_entry(50721, *matrix),  # ColorMatrix1
        rational_entry(50728, *neutral),  # AsShotNeutral
        srational_entry(50730, Fraction(0)),  # BaselineExposure
        short_entry(50778, _D65_ILLUMINANT),  # CalibrationIlluminant1
        rational_entry(50935, Fraction(1)),  # NoiseReductionApplied: all of it
        long_entry(51110, _NO_BLACK_RENDERING),  # DefaultBlackRender
    ]
    append_tags(path, (*tags.main, *dng), tags.exif, tags.gps)


def colour_matrix(linear: LinearImage) -> npt.NDArray[np.float64]:
    """ColorMatrix1 `[3, 3]`: CIE XYZ to camera colour before white balance.

    It is scaled so that the as-shot neutral is the colour of D65. A reader that balances to AsShotNeutral and
    a reader that inverts the matrix (DNG 1.4, chapter 6) then both come to `to_srgb @ balanced pixels`, the
    picture as it was developed. Without `to_srgb` the balanced camera colours are taken for sRGB's.
    """
    to_srgb = np.eye(3) if linear.to_srgb is None else linear.to_srgb.astype(np.float64)
    try:
        from_xyz = np.linalg.inv(np.array(SRGB_TO_XYZ) @ to_srgb)
    except np.linalg.LinAlgError:
        raise OutputError("The camera's colour matrix cannot be inverted, so no linear DNG can be written.") from None
    return np.asarray(from_xyz / np.array(linear.wb)[:, None], dtype=np.float64)


def _without_balance(linear: LinearImage) -> npt.NDArray[np.uint16]:
    """Divide the pixels `[H, W, 3]` by their gains; they then clip at 65535 / gain, white once balanced."""
    shares = (1 / np.array(linear.wb)).astype(np.float32)
    camera = np.empty_like(linear.pixels, order="C")
    for top in range(0, len(camera), _BAND_ROWS):
        band = slice(top, top + _BAND_ROWS)
        camera[band] = np.rint(linear.pixels[band] * shares)
    return camera
