"""What the pixels say about the levels: a black level that is missing or wrong, data that are no sensor's.

Everything is in DN of the mosaic and per colour index (R, G1, B, G2). The darkest areas of a frame are found
as blocks of 8 x 8 samples of one colour: a median over 64 samples does not see dead pixels and hardly moves
with noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import UsageError
from lowlight.core.photo import CfaPattern, PerColour

Levels = tuple[float, float]  # black and white in DN, of all colours

LEVEL_PRESETS: dict[str, Levels] = {"sony-sid": (512, 16383)}

Mosaic = npt.NDArray[np.uint16]

_BLOCK = 8
_MAX_BLOCKS = 16384  # per colour: enough to find the dark areas, cheap on any frame
_DARKEST_PERCENT = 1.0
_DEAD_PERCENT = 0.5  # so many pixels may be dead
# Camera makers' black levels lie between 1 % (low-end 12-bit cameras) and 13 % (Canon's 2048 of 16383) of the
# range.
_PEDESTAL_RANGE = (0.01, 0.15)
_STEADY_FLOOR = 0.85  # darkest blocks relative to dark blocks: a pedestal is a floor, shadows go on downwards
_COLOUR_SPREAD = 1.6  # a pedestal is about the same for all colours, light is not
_SEEN_ROWS = 256  # of a plane, whose single values are looked at: looking at all takes longer than reading
_TOO_HIGH_SHARE = 0.01
_TOO_HIGH_SIGMAS = 4.0
_GREEN_MISMATCH = 0.05
_STRETCH_DN = 256


def named_levels(name: str) -> Levels | None:
    """The levels that a name pins, None for no name: the files' own. Raises `UsageError` for one that is not there."""
    if name and name not in LEVEL_PRESETS:
        raise UsageError(f"there are no levels called {name!r}; there are {', '.join(LEVEL_PRESETS)}")
    return LEVEL_PRESETS.get(name)


@dataclass(frozen=True)
class Floor:
    """The darkest areas of one colour: their level and noise (standard deviation), both in DN."""

    level: float
    sigma: float
    lowest: float  # the median of the very darkest blocks


def planes(mosaic: Mosaic, pattern: CfaPattern) -> tuple[Mosaic, Mosaic, Mosaic, Mosaic]:
    """Cut the four colour planes as views, by colour index; sizes differ by one where the mosaic's is odd."""
    by_colour = {pattern[i][j]: mosaic[i::2, j::2] for i in (0, 1) for j in (0, 1)}
    return by_colour[0], by_colour[1], by_colour[2], by_colour[3]


def darkest_areas(plane: Mosaic) -> Floor:
    """Measure the darkest blocks of a plane `[h, w]`."""
    blocks = _blocks(plane)
    medians = _medians(blocks)
    last = max(int(len(medians) * _DARKEST_PERCENT / 100), 1) - 1
    middle = float(np.partition(medians, last)[last])
    # Every block as dark as the last of these is taken: in a black frame the ties would be an arbitrary
    # choice.
    chosen = blocks[medians <= middle].astype(np.float64)
    deviations = np.abs(chosen - _medians(chosen)[:, None])
    sigma = max(1.4826 * float(np.median(deviations)), float(np.mean(np.minimum(deviations, 3))), 0.3)
    near = chosen[np.abs(chosen - middle) <= 4 * sigma]
    level = float(near.mean()) if near.size else middle  # the mean resolves less than one DN, a median does not
    return Floor(level, sigma, float(np.percentile(medians, _DARKEST_PERCENT / 10, method="lower")))


def find_pedestal(mosaic: Mosaic, pattern: CfaPattern, white: float) -> PerColour | None:
    """Find the black level of a frame whose file says 0, or None where nothing shows that it is not 0.

    A pedestal is a floor: high enough to be one, not too high, the same for the darkest blocks and for all
    colours. Shadows of a sensor with a true black of 0 keep getting darker instead.
    """
    cut = planes(mosaic, pattern)
    floors = [darkest_areas(plane) for plane in cut]
    black = _common_black(cut, floors)
    low, high = (share * white for share in _PEDESTAL_RANGE)
    steady = all(floor.lowest >= _STEADY_FLOOR * floor.level for floor in floors)
    alike = max(f.level for f in floors) <= _COLOUR_SPREAD * min(f.level for f in floors)
    return black if low <= min(black) <= high and steady and alike else None


def _common_black(cut: Sequence[Mosaic], floors: Sequence[Floor]) -> PerColour:
    levels = [
        min(floor.level, float(np.percentile(plane, _DEAD_PERCENT)) + _TOO_HIGH_SIGMAS * floor.sigma)
        for plane, floor in zip(cut, floors, strict=True)
    ]
    lowest = min(levels)
    r, g1, b, g2 = (min(level, lowest + max(1.0, floor.sigma / 2)) for level, floor in zip(levels, floors, strict=True))
    return r, g1, b, g2


def check_black(mosaic: Mosaic, pattern: CfaPattern, black: PerColour, white: PerColour) -> tuple[str, ...]:
    """Report a black level that is evidently wrong; a bright frame without dark areas is not evidence.

    Too high: many pixels lie further below it than noise explains. Too low: a dark frame without any contrast
    lies far above it.
    """
    below, floors, lifted = 0.0, [], True
    for colour, plane in enumerate(planes(mosaic, pattern)):
        floor = darkest_areas(plane)
        floors.append(floor.level)
        margin = max(_TOO_HIGH_SIGMAS * floor.sigma, 2.0)
        seen = plane[:: max(plane.shape[0] // _SEEN_ROWS, 1)]
        below = max(below, float(np.count_nonzero(seen < black[colour] - margin)) / seen.size)
        top = _quantile(seen, 0.999)
        lift = floor.level - black[colour]
        dark = top < black[colour] + 0.1 * (white[colour] - black[colour])
        lifted = lifted and dark and lift > 10 * floor.sigma and top - floor.level < lift / 2
    if below > _TOO_HIGH_SHARE:
        return (
            f"The black level looks too high: {below:.0%} of the pixels lie well below {_levels(black)}, "
            f"the darkest areas at {min(floors):.0f}.",
        )
    if lifted:
        return (
            f"The black level {_levels(black)} looks too low: this dark frame has hardly any contrast and "
            f"nothing in it is below {min(floors):.0f}.",
        )
    return ()


def check_greens(mosaic: Mosaic, pattern: CfaPattern, black: PerColour, white: PerColour) -> tuple[str, ...]:
    """Say so if the two greens differ while red and blue agree: the file's colour pattern must be wrong."""
    cut = planes(mosaic, pattern)
    height, width = (min(plane.shape[axis] for plane in cut) for axis in (0, 1))
    r, g1, b, g2 = (_blocks(plane[:height, :width]).mean(axis=1) - black[c] for c, plane in enumerate(cut))
    lit = np.minimum(np.minimum(r, b), np.minimum(g1, g2)) > 0.02 * (min(white) - max(black))
    if np.count_nonzero(lit) < 16:
        return ()
    greens = abs(float(np.median((g1 - g2)[lit] / (g1 + g2)[lit])))
    others = abs(float(np.median((r - b)[lit] / (r + b)[lit])))
    if greens > _GREEN_MISMATCH and others < greens / 4:
        return (
            "The colour pattern in the file looks wrong: its two greens differ "
            f"by {2 * greens:.0%} while red and blue agree, so colours may be off; fine detail is left out unless "
            "--detail asks for it.",
        )
    return ()


def is_stretched_8_bit(mosaic: Mosaic, black: PerColour, white: float) -> bool:
    """Tell whether these are the 256 values of a rendered picture spread over 16 bits: no sensor's data.

    Black 0, white at the end of 16 bits, and every value a multiple of 256 or of 257.
    """
    if any(black) or white < 65280 or int(mosaic.max(initial=0)) < 16 * _STRETCH_DN:
        return False
    values = np.flatnonzero(np.bincount(mosaic.ravel(), minlength=1))
    return len(values) >= 16 and int(np.gcd.reduce(values)) >= _STRETCH_DN


def _levels(values: PerColour) -> str:
    """Show a level as people read it: one number where all colours agree."""
    shown = [f"{value:g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else "/".join(shown)


def _cut(plane: Mosaic) -> Mosaic:
    """Cut a plane into `[rows, 8, columns, 8]`; a plane smaller than a block is one block."""
    high, wide = (min(_BLOCK, size) for size in plane.shape)
    height, width = plane.shape[0] // high * high, plane.shape[1] // wide * wide
    return plane[:height, :width].reshape(height // high, high, width // wide, wide)


def _blocks(plane: Mosaic) -> Mosaic:
    """Take at most `_MAX_BLOCKS` blocks spread over the plane, each as a row of its samples."""
    cut = _cut(plane)
    step = max(1, int(np.ceil(np.sqrt(cut.shape[0] * cut.shape[2] / _MAX_BLOCKS))))
    thinned = cut[::step, :, ::step]
    return thinned.transpose(0, 2, 1, 3).reshape(thinned.shape[0] * thinned.shape[2], -1)


def _medians(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The median of each row of `[n, samples]`; sorting short rows takes a tenth of what `np.median` does."""
    samples = rows.shape[1]
    return np.asarray(np.sort(rows, axis=1)[:, (samples - 1) // 2 : samples // 2 + 1].mean(axis=1), dtype=np.float64)


def _quantile(values: Mosaic, share: float) -> float:
    """The value that `share` of the values are at most, the nearest one: `np.percentile` takes ten times as long."""
    place = round(share * (values.size - 1))
    return float(np.partition(values, place, axis=None)[place])
