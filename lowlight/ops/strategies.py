"""The named ways of cutting a frame into tiles and merging them again (thesis, section on full-frame prediction)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast, get_args

from lowlight.core.errors import UsageError
from lowlight.ops.blending import Merge
from lowlight.ops.tiling import THESIS_TILE, GridRule, dense, sparse

DEFAULT_STRATEGY = "baseline"
MAX_POWER = 12.0  # the weights of a tile's corners would no longer fit into 32-bit floats


@dataclass(frozen=True)
class Strategy:
    """A grid (its rule for a tile size in packed pixels), a merge and the power of its inverse distance."""

    grid: Callable[[int], GridRule]
    merge: Merge
    power: float


STRATEGIES: dict[str, Strategy] = {
    "baseline": Strategy(dense, "idw", 2.0),
    "faster1": Strategy(dense, "idw", 0.0),
    "faster2": Strategy(sparse, "idw", 2.0),
    "fastest": Strategy(sparse, "idw", 0.0),
}


@dataclass(frozen=True)
class Tiling:
    """One choice, ready for the restorer."""

    grid: GridRule
    merge: Merge
    power: float


def choose_tiling(
    strategy: str = DEFAULT_STRATEGY,
    *,
    stride: int | None = None,
    overlap: int | None = None,
    merge: str | None = None,
    power: float | None = None,
    tile: int = THESIS_TILE,
) -> Tiling:
    """Take a named strategy with any of its parts replaced; lengths are in packed pixels.

    `stride` is the largest distance between tile starts, `overlap` a fixed one; one of the two at most. `power`
    has no effect on the feathered merge. Raises `UsageError` for what cannot be.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"There is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}.")
    named = STRATEGIES[strategy]
    if stride is not None and overlap is not None:
        raise UsageError("A grid has either a stride or an overlap; give one of the two.")
    if stride is not None and not 1 <= stride <= tile:
        raise UsageError(f"A stride of {stride} leaves gaps or never ends; tiles of {tile} take 1 to {tile}.")
    if overlap is not None and not 0 <= overlap < tile:
        raise UsageError(f"Tiles of {tile} cannot overlap by {overlap}; they can by 0 to {tile - 1}.")
    if merge is not None and merge not in get_args(Merge):
        raise UsageError(f"There is no merge {merge!r}; there are {' and '.join(get_args(Merge))}.")
    if power is not None and not 0 <= power <= MAX_POWER:
        raise UsageError(f"The power of the inverse distance is 0 to {MAX_POWER:g}, not {power:g}.")
    grid = named.grid(tile)
    if stride is not None or overlap is not None:
        grid = GridRule(stride=stride, overlap=overlap)
    return Tiling(
        grid,
        named.merge if merge is None else cast(Merge, merge),
        named.power if power is None else float(power),
    )
