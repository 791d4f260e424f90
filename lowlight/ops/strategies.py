"""The named ways of cutting a frame into tiles and merging them again (thesis, section on full-frame prediction)."""

from dataclasses import dataclass
from typing import cast, get_args

from lowlight.core.errors import UsageError
from lowlight.ops.blending import Merge
from lowlight.ops.tiling import GridRule, dense, sparse

DEFAULT_STRATEGY = "baseline"
MAX_POWER = 12.0  # the weights of a tile's corners would no longer fit into 32-bit floats


@dataclass(frozen=True)
class Tiling:
    """A grid, which fits itself to the tiles of a network, a merge and the power of its inverse distance."""

    grid: GridRule
    merge: Merge
    power: float


STRATEGIES: dict[str, Tiling] = {
    "baseline": Tiling(dense(), "idw", 2.0),
    "faster1": Tiling(dense(), "idw", 0.0),
    "faster2": Tiling(sparse(), "idw", 2.0),
    "fastest": Tiling(sparse(), "idw", 0.0),
}


def choose_tiling(
    strategy: str = DEFAULT_STRATEGY,
    *,
    stride: int | None = None,
    overlap: int | None = None,
    merge: str | None = None,
    power: float | None = None,
) -> Tiling:
    """Take a named strategy with any of its parts replaced; lengths are in packed pixels.

    `stride` is the largest distance between tile starts, `overlap` a fixed one; one of the two at most. Whether tiles
    are large enough for them shows when the network is known (`GridRule.fitted`). Raises `UsageError` for what cannot
    be, and for a `power` beside a feathered merge, which has none.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"There is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}.")
    named = STRATEGIES[strategy]
    if stride is not None and overlap is not None:
        raise UsageError("A grid has either a stride or an overlap; give one of the two.")
    if stride is not None and stride < 1:
        raise UsageError(f"A stride of {stride} never ends; give at least 1.")
    if overlap is not None and overlap < 0:
        raise UsageError(f"An overlap of {overlap} leaves gaps; give at least 0.")
    if merge is not None and merge not in get_args(Merge):
        raise UsageError(f"There is no merge {merge!r}; there are {' and '.join(get_args(Merge))}.")
    if power is not None and not 0 <= power <= MAX_POWER:
        raise UsageError(f"The power of the inverse distance is 0 to {MAX_POWER:g}, not {power:g}.")
    if power is not None and (merge or named.merge) == "feather":
        raise UsageError("--power is about the merge by inverse distances; leave it, or the feathered merge.")
    own = stride is not None or overlap is not None
    grid = GridRule(stride=stride, overlap=overlap) if own else named.grid
    return Tiling(
        grid,
        named.merge if merge is None else cast(Merge, merge),
        named.power if power is None else float(power),
    )
