"""Where the tiles of a frame lie (thesis, section on full-frame prediction; the two published grids).

Letters: D length of one axis, S tile size, both in packed pixels.
"""

from dataclasses import dataclass

THESIS_TILE = 256
THESIS_STRIDE = 146  # largest stride of the thesis' dense grid, for tiles of 256
THESIS_OVERLAP = 22  # overlap of its sparse grid


@dataclass(frozen=True)
class GridRule:
    """How tiles are spread: evenly with at most `stride` between starts, or with a fixed `overlap`.

    Exactly one of the two is set, in packed pixels. The dense rule spreads tiles evenly; the sparse one keeps the
    overlap and moves only the last tile back.
    """

    stride: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        if (self.stride is None) == (self.overlap is None):
            raise ValueError("a grid takes either a stride or an overlap")


def dense(tile: int = THESIS_TILE) -> GridRule:
    """The thesis' option 1, scaled to the tile size."""
    return GridRule(stride=max(tile * THESIS_STRIDE // THESIS_TILE, 1))


def sparse(tile: int = THESIS_TILE) -> GridRule:
    """The thesis' option 2, scaled to the tile size."""
    return GridRule(overlap=tile * THESIS_OVERLAP // THESIS_TILE)


def axis_starts(length: int, tile: int, rule: GridRule) -> tuple[int, ...]:
    """Tile starts along one axis: the first at 0, the last ending at `length`, no gap between neighbours.

    A frame shorter than the tile gets the single start 0 and must be padded to the tile.
    """
    if length <= tile:
        return (0,)
    span = length - tile
    if rule.stride is not None:
        count = -(-span // rule.stride) + 1
        return tuple((2 * i * span + count - 1) // (2 * (count - 1)) for i in range(count))
    assert rule.overlap is not None
    step = tile - rule.overlap
    count = -(-(length - rule.overlap) // step)
    return tuple(min(i * step, span) for i in range(count))


def _rounded_starts(length: int, tile: int, rule: GridRule, multiple: int) -> tuple[int, ...]:
    """Starts at multiples: those of the length rounded up, rounded down; no step grows beyond the tile by that."""
    starts = axis_starts(-(-length // multiple) * multiple, tile, rule)
    return tuple(sorted({start // multiple * multiple for start in starts}))


@dataclass(frozen=True)
class TileGrid:
    """The tiles of one frame of `height` x `width` packed pixels; all pairs of `rows` and `cols` are used.

    The last tile of an axis may run over the frame's end, which then must be padded.
    """

    height: int
    width: int
    tile: int
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @classmethod
    def cover(cls, height: int, width: int, tile: int, rule: GridRule, multiple: int = 1) -> "TileGrid":
        """Tiles that cover the frame by `rule`, their starts rounded down to a `multiple`, which divides `tile`."""
        step = rule.stride if rule.stride is not None else tile - (rule.overlap or 0)
        if not 0 < step <= tile:
            raise ValueError(f"stride must be 1 to {tile} and overlap 0 to {tile - 1} for tiles of {tile}")
        if multiple < 1 or tile % multiple:
            raise ValueError(f"starts at multiples of {multiple} do not fit tiles of {tile}")
        rows, cols = (_rounded_starts(length, tile, rule, multiple) for length in (height, width))
        return cls(height, width, tile, rows, cols)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.cols)

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width after padding the frame up to the ends of its last tiles."""
        return max(self.height, self.rows[-1] + self.tile), max(self.width, self.cols[-1] + self.tile)
