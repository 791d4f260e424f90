"""Where the tiles of a frame lie (thesis, section on full-frame prediction; the two published grids).

Letters: D length of one axis, S tile size, both in packed pixels.
"""

from dataclasses import dataclass

from lowlight.core.errors import UsageError

THESIS_TILE = 256
THESIS_STRIDE = 146  # largest stride of the thesis' dense grid, for tiles of 256
THESIS_OVERLAP = 22  # overlap of its sparse grid


@dataclass(frozen=True)
class GridRule:
    """How tiles are spread: evenly with at most `stride` between starts, or with a fixed `overlap`.

    Exactly one of the two is set, in packed pixels. The dense rule spreads tiles evenly; the sparse one keeps the
    overlap and moves only the last tile back. Numbers that are meant for tiles of one size, `of_tile`, grow and shrink
    with the tiles; without it they are taken as they are.
    """

    stride: int | None = None
    overlap: int | None = None
    of_tile: int | None = None

    def __post_init__(self) -> None:
        if (self.stride is None) == (self.overlap is None):
            raise ValueError("a grid takes either a stride or an overlap")

    def fitted(self, tile: int) -> "GridRule":
        """The rule in numbers for tiles of a size; `UsageError` where these would leave gaps or never end."""
        stride, overlap = self.stride, self.overlap
        if self.of_tile:
            stride = None if stride is None else max(stride * tile // self.of_tile, 1)
            overlap = None if overlap is None else overlap * tile // self.of_tile
        step = tile - (overlap or 0) if stride is None else stride
        if not 0 < step <= tile:
            found = f"a stride of {stride}" if overlap is None else f"an overlap of {overlap}"
            raise UsageError(
                f"{found} does not fit these weights, whose tiles have {tile} packed pixels a side; expected a stride "
                f"of 1 to {tile} or an overlap of 0 to {tile - 1}, or leave both to the strategy"
            )
        return GridRule(stride=stride, overlap=overlap)


def dense(tile: int = THESIS_TILE) -> GridRule:
    """The thesis' option 1, as a share of the tile size."""
    return GridRule(stride=max(tile * THESIS_STRIDE // THESIS_TILE, 1), of_tile=tile)


def sparse(tile: int = THESIS_TILE) -> GridRule:
    """The thesis' option 2, as a share of the tile size."""
    return GridRule(overlap=tile * THESIS_OVERLAP // THESIS_TILE, of_tile=tile)


def axis_starts(length: int, tile: int, rule: GridRule) -> tuple[int, ...]:
    """Tile starts along one axis: the first at 0, the last ending at `length`, no gap between neighbours.

    A frame shorter than the tile gets the single start 0 and must be padded to the tile.
    """
    if length <= tile:
        return (0,)
    rule, span = rule.fitted(tile), length - tile
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
        rule = rule.fitted(tile)
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
