"""White balance and colour matrix out of what LibRaw found in a file, and of its ways of saying "unknown"."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lowlight.core.colorimetry import SRGB_TO_XYZ
from lowlight.core.photo import CfaPattern, PerColour
from lowlight.raw.levels import Mosaic, planes

_MOST_UNEVEN = 32.0  # gains further apart come from a broken tag, not from a light source
_ALMOST_UNIT = 1.25  # no Bayer sensor sees daylight neutral: its green is 1.3 to 2.7 times its red
_GREEN_CAST = 1.5  # unit gains with green this far above red and blue: nobody balanced these data
_GREY_WORLD_RANGE = (0.125, 8.0)
_CMATRIX_PRESENT = 0.125  # LibRaw's own test of whether a file brought a colour matrix

Matrix = npt.NDArray[np.float32]


def gains(values: Sequence[float]) -> PerColour | None:
    """Turn LibRaw's multipliers into gains with green = 1, or None where they mean nothing.

    Entry 3 is usually 0: the second green is then the first. Zero, negative (the file gave none) and
    non-finite entries mean that there is no balance.
    """
    r, g, b = (float(value) for value in values[:3])
    if not all(math.isfinite(value) and value > 0 for value in (r, g, b)):
        return None
    g2 = float(values[3]) if len(values) > 3 else 0.0
    if not (math.isfinite(g2) and g2 > 0):
        g2 = g
    balanced = (r / g, 1.0, b / g, g2 / g)
    return balanced if max(balanced) <= _MOST_UNEVEN * min(balanced) else None


def grey_world(mosaic: Mosaic, pattern: CfaPattern, black: PerColour, white: PerColour) -> PerColour | None:
    """Find the gains that make the average of the unclipped parts of a frame gray; None without light.

    Means are taken over quads of four samples, without those that clip and without the brightest half
    percent, so that lamps do not decide. Both greens share one gain. Gains stay within [1/8, 8].
    """
    cut = planes(mosaic, pattern)
    height, width = (min(plane.shape[axis] for plane in cut) for axis in (0, 1))
    step = max(1, math.ceil(math.sqrt(height * width / 2**20)))
    quads = np.stack([plane[:height:step, :width:step].ravel() for plane in cut]).astype(np.float32)
    levels, tops = (np.array(v, dtype=np.float32)[:, None] for v in (black, white))
    usable = (quads < levels + 0.95 * (tops - levels)).all(axis=0)
    signal = (quads - levels)[:, usable]
    if signal.shape[1] == 0:
        return None
    light = signal.mean(axis=0)
    signal = signal[:, light <= np.percentile(light, 99.5)]
    r, g1, b, g2 = (float(value) for value in signal.mean(axis=1, dtype=np.float64))
    green = (g1 + g2) / 2
    error = float(signal.std()) / math.sqrt(signal.shape[1])
    if min(r, green, b) <= max(4 * error, 1e-3 * green):
        return None
    low, high = _GREY_WORLD_RANGE
    return min(max(green / r, low), high), 1.0, min(max(green / b, low), high), 1.0


def daylight_gains(values: Sequence[float]) -> PerColour | None:
    """Turn LibRaw's daylight multipliers into gains, or None: an unknown camera gets about 1, 1, 1."""
    day = gains(values)
    return day if day is not None and max(day) >= _ALMOST_UNIT * min(day) else None


def choose_balance(
    camera: PerColour | None,
    daylight: PerColour | None,
    mosaic: Mosaic,
    pattern: CfaPattern,
    black: PerColour,
    white: PerColour,
) -> tuple[PerColour, str, tuple[str, ...]]:
    """Choose the gains; also say where they come from and, in sentences, what a user should know.

    The camera's own ("camera"), else its "daylight" gains, else "grey world" from the mosaic. Camera gains of
    exactly 1 are believed unless the mosaic is plainly green, the sign of a placeholder.
    """
    untouched = camera is not None and all(abs(gain - 1) < 1e-3 for gain in camera)
    if camera is not None and not untouched:
        return camera, "camera", ()
    gray = grey_world(mosaic, pattern, black, white)
    why = "The file has no white balance"
    if camera is not None:
        if gray is None or min(gray[0], gray[2]) <= _GREEN_CAST:
            return camera, "camera", ()
        why = "The file's white balance of 1, 1, 1 is a placeholder (its data are green)"
    if daylight is not None:
        return daylight, "daylight", (f"{why}: the camera's daylight balance is used.",)
    if gray is not None:
        return gray, "grey world", (f"{why} and no daylight balance is known: the average is made gray.",)
    unit = (1.0, 1.0, 1.0, 1.0)
    return (
        unit,
        "grey world",
        (f"{why}, none is known and the frame is too dark to tell: no gains are applied.",),
    )


def camera_to_srgb(color_matrix: npt.ArrayLike, rgb_xyz_matrix: npt.ArrayLike) -> Matrix | None:
    """White-balanced camera colour to linear sRGB, `[3, 3]`, rows sum to 1; None if LibRaw knows no matrix.

    As LibRaw renders: the matrix the file brought (`color_matrix [3, 4]`) first, else the one of LibRaw's
    table of cameras (`rgb_xyz_matrix [4, 3]`, CIE XYZ under D65 to camera), scaled so that white stays
    neutral, and inverted.
    """
    brought = np.asarray(color_matrix, dtype=np.float64)[:3, :3]
    known = np.asarray(rgb_xyz_matrix, dtype=np.float64)[:3, :3]
    if np.isfinite(brought).all() and brought[0, 0] > _CMATRIX_PRESENT:
        return _neutral_rows(brought)
    if not np.isfinite(known).all() or not known.any():
        return None
    from_srgb = _neutral_rows(known @ np.array(SRGB_TO_XYZ))
    if from_srgb is None or np.linalg.cond(from_srgb) > 1e4:
        return None
    return _neutral_rows(np.linalg.inv(from_srgb.astype(np.float64)))


def _neutral_rows(matrix: npt.NDArray[np.float64]) -> Matrix | None:
    """Scale the rows to sum to 1, or return None where a row cannot be."""
    sums = matrix.sum(axis=1, keepdims=True)
    if (sums < 1e-6).any():
        return None
    return np.asarray(matrix / sums, dtype=np.float32)
