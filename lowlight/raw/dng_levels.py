"""Black levels of a DNG as its own tags have them: fractions, and patterns other than 2 x 2, which LibRaw rounds off.

Source: Adobe, Digital Negative Specification 1.7, tags BlackLevelRepeatDim, BlackLevel and ActiveArea.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.raw.exif import PHOTOMETRIC, read_directories

_CFA = 32803  # PhotometricInterpretation of a mosaic
_NEW_SUBFILE_TYPE, _SAMPLE_FORMAT = 254, 339
_REPEAT, _BLACK, _DELTA_H, _DELTA_V, _ACTIVE = 50713, 50714, 50715, 50716, 50829
_FLOAT = 3  # SampleFormat: LibRaw brings such files to a scale of its own


def dng_black(path: Path, origin: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    """Black levels in DN of the four places of a 2x2 block, `[2, 2]`; None where the tags do not say them.

    `origin` is the row and column of the raw picture at which the block lies. A level that repeats over more than 2 x 2
    pixels is averaged.
    """
    for tags in read_directories(path):
        if tags.get(PHOTOMETRIC) == _CFA and not tags.get(_NEW_SUBFILE_TYPE):
            return _of_mosaic(tags, origin)
    return None


def _of_mosaic(tags: dict[int, Any], origin: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    if _BLACK not in tags or _DELTA_H in tags or _DELTA_V in tags or _FLOAT in _numbers(tags.get(_SAMPLE_FORMAT, 1)):
        return None
    repeat, levels = _numbers(tags.get(_REPEAT, (1, 1))), _numbers(tags[_BLACK])
    active = _numbers(tags.get(_ACTIVE, (0, 0)))[:2]
    sound = np.isfinite([*repeat, *levels, *active]).all() and min(levels, default=-1) >= 0
    if not sound or any(number < 1 or number != int(number) for number in repeat):
        return None
    if len(repeat) != 2 or len(active) != 2 or len(levels) != repeat[0] * repeat[1]:
        return None
    pattern = np.tile(np.reshape(levels, (int(repeat[0]), int(repeat[1]))), (2, 2))
    seen = np.roll(pattern, (int(active[0]) - origin[0], int(active[1]) - origin[1]), axis=(0, 1))
    return np.array([[seen[row::2, col::2].mean() for col in (0, 1)] for row in (0, 1)])


def _numbers(value: Any) -> list[float]:
    """The numbers of a tag; NaN for what is none, such as text or a fraction of nothing."""
    numbers = []
    for each in value if isinstance(value, tuple | list) else (value,):
        try:
            numbers.append(float(each))
        except (TypeError, ValueError, ZeroDivisionError):
            numbers.append(float("nan"))
    return numbers
