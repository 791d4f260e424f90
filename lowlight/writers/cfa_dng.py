"""CFA DNG: a Bayer mosaic as an uncompressed RAW file that LibRaw reads (DNG 1.4)."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.atomic import replacing
from lowlight.core.photo import CfaPattern, PerColour
from lowlight.writers.ifd import (
    HEADER,
    ascii_entry,
    byte_entry,
    long_entry,
    pack_directory,
    pack_sub_directories,
    rational_entry,
    short_entry,
    srational_entry,
    undefined_entry,
)

_CFA_PHOTOMETRIC = 32803
_D65_ILLUMINANT = 21
_DENOMINATOR = 1_000_000
_LARGEST = 2**31 - 1  # of a signed fraction's parts
_BAND_ROWS = 512


def write_cfa_dng(
    path: Path,
    mosaic: npt.NDArray[np.uint16],
    *,
    pattern: CfaPattern,
    black: PerColour,
    white: int,
    wb: PerColour,
    xyz_to_camera: npt.ArrayLike | None = None,
    exposure_s: float | None = None,
    iso: float | None = None,
    aperture: float | None = None,
    orientation: int = 1,
    make: str = "lowlight",
    model: str = "Synthetic",
) -> None:
    """Write `mosaic` (uint16 `[H, W]` in DN, any size) to `path`, whole or not at all.

    `pattern[i][j]` is the colour index of `mosaic[i, j]`; `black` is per colour index and stored per
    position, `white` is one number, both in DN. `wb` are gains with green = 1; a DNG has one green, so entry
    3 is not kept. `xyz_to_camera [3, 3]` maps CIE XYZ (D65) to camera colour. `orientation` is the EXIF
    value. `exposure_s` is in seconds, `aperture` the f-number. Raises ValueError for arguments that no DNG
    can hold.
    """
    colours = [index for row in pattern for index in row]
    if mosaic.ndim != 2 or mosaic.dtype != np.uint16 or 0 in mosaic.shape:
        raise ValueError(f"a mosaic is uint16 [H, W], not {mosaic.dtype} {list(mosaic.shape)}")
    if sorted(colours) != [0, 1, 2, 3] or orientation not in range(1, 9):
        raise ValueError(f"impossible pattern {pattern} or orientation {orientation}")
    if not (min(wb) > 0 and min(black) >= 0 and max(black) < white <= 65535):
        raise ValueError(f"impossible levels or gains: black {black}, white {white}, gains {wb}")
    height, width = mosaic.shape
    neutral = [wb[1] / gain for gain in wb[:3]]
    main = [
        long_entry(254, 0),  # NewSubfileType: the main image
        long_entry(256, width),
        long_entry(257, height),
        short_entry(258, 16),  # BitsPerSample
        short_entry(259, 1),  # Compression: none
        short_entry(262, _CFA_PHOTOMETRIC),
        ascii_entry(271, make),
        ascii_entry(272, model),
        short_entry(274, orientation),
        short_entry(277, 1),  # SamplesPerPixel
        long_entry(278, height),  # RowsPerStrip: one strip
        long_entry(279, 2 * mosaic.size),  # StripByteCounts
        short_entry(284, 1),  # PlanarConfiguration
        short_entry(33421, 2, 2),  # CFARepeatPatternDim
        byte_entry(33422, *(1 if index == 3 else index for index in colours)),  # CFAPattern
        byte_entry(50706, 1, 4, 0, 0),  # DNGVersion
        byte_entry(50707, 1, 1, 0, 0),  # DNGBackwardVersion
        ascii_entry(50708, f"{make} {model}"),  # UniqueCameraModel
        byte_entry(50710, 0, 1, 2),  # CFAPlaneColor
        short_entry(50711, 1),  # CFALayout: rectangular
        short_entry(50713, 2, 2),  # BlackLevelRepeatDim
        rational_entry(50714, *_fractions(black[index] for index in colours)),  # BlackLevel
        long_entry(50717, white),  # WhiteLevel
        rational_entry(50728, *_fractions(neutral)),  # AsShotNeutral
    ]
    if xyz_to_camera is not None:
        matrix = np.asarray(xyz_to_camera, dtype=np.float64).reshape(3, 3)
        main.append(srational_entry(50721, *_fractions(matrix.flat)))  # ColorMatrix1
        main.append(short_entry(50778, _D65_ILLUMINANT))  # CalibrationIlluminant1
    exif = [undefined_entry(36864, b"0231")]  # ExifVersion
    if exposure_s is not None:
        exif.append(rational_entry(33434, _shutter(exposure_s)))
    if aperture is not None:
        exif.append(rational_entry(33437, *_fractions([aperture])))
    if iso is not None:
        exif.append(short_entry(34855, min(round(iso), 65535)))
        if iso > 65535:  # Exif 2.3: the full value stands in a 32-bit tag, which SensitivityType names
            exif += [short_entry(34864, 2), long_entry(34866, round(iso))]

    # A directory's length does not depend on the values in it, so a first round gives the offsets of the
    # second.
    _, pointers = pack_sub_directories(exif, (), 0)
    exif_offset = len(HEADER) + len(pack_directory([*main, *pointers, long_entry(273, 0)], 0))
    sub_directories, pointers = pack_sub_directories(exif, (), exif_offset)
    strip_offset = long_entry(273, exif_offset + len(sub_directories))
    directory = pack_directory([*main, *pointers, strip_offset], len(HEADER))
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(HEADER + directory + sub_directories)
        for top in range(0, height, _BAND_ROWS):
            file.write(np.ascontiguousarray(mosaic[top : top + _BAND_ROWS], dtype="<u2").tobytes())


def _fractions(values: Iterable[float]) -> list[Fraction]:
    """Fractions of 32-bit numbers: to six digits where the number is small, and of large ones as near as may be."""
    return [_fraction(float(value)) for value in values]


def _fraction(value: float) -> Fraction:
    denominator = _DENOMINATOR
    while abs(value) * denominator > _LARGEST:
        denominator //= 10
    return Fraction(round(value * denominator), denominator)


def _shutter(exposure_s: float) -> Fraction:
    """Turn a positive exposure time into a fraction of 32-bit numbers, exact to six digits from 1 us on."""
    return Fraction(exposure_s).limit_denominator(_DENOMINATOR if exposure_s >= 1e-3 else 1_000_000_000)
