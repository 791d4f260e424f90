"""Where tiles lie, and how they are merged."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lowlight.core.errors import UsageError
from lowlight.ops.blending import MOST_SCALES, BandBlender, FloatArray, Merge, tile_weights
from lowlight.ops.tiling import GridRule, TileGrid, axis_starts, dense, sparse

MERGES: list[tuple[Merge, float]] = [("idw", 0), ("idw", 2), ("idw", 4), ("feather", 2)]
FULL = (1424, 2128)  # a packed frame of the thesis


def tiles_of(picture: FloatArray, grid: TileGrid) -> Iterator[FloatArray]:
    for row in grid.rows:
        for col in grid.cols:
            yield picture[:, row : row + grid.tile, col : col + grid.tile].copy()


def padded(picture: FloatArray, grid: TileGrid) -> FloatArray:
    height, width = grid.padded
    return np.pad(picture, ((0, 0), (0, height - picture.shape[1]), (0, width - picture.shape[2])), mode="edge")


def merged(tiles: Iterator[FloatArray], grid: TileGrid, weights: FloatArray, channels: int) -> FloatArray:
    """All bands of a merge below each other; they must follow without a gap."""
    height, width = grid.padded
    out = np.full((channels, height, width), np.nan, dtype=np.float32)
    expected_row = 0
    for row, band in BandBlender(grid.rows, grid.cols, width, channels, weights).merge(tiles):
        assert row == expected_row
        expected_row += band.shape[1]
        out[:, row:expected_row] = band
    assert expected_row == height
    return out


def merged_at_once(
    tiles: Iterator[FloatArray], grid: TileGrid, weights: FloatArray, channels: int
) -> npt.NDArray[np.float64]:
    """The plain form of the formula: two full frames in float64."""
    total = np.zeros((channels, *grid.padded))
    weight = np.zeros(grid.padded)
    for (row, col), tile in zip([(r, c) for r in grid.rows for c in grid.cols], tiles, strict=True):
        window = (slice(row, row + grid.tile), slice(col, col + grid.tile))
        total[:, *window] += np.clip(tile, 0, 1) * weights.astype(np.float64)
        weight[window] += weights
    return total / weight


def coverage(grid: TileGrid) -> npt.NDArray[np.int64]:
    count = np.zeros(grid.padded, dtype=np.int64)
    for row in grid.rows:
        for col in grid.cols:
            count[row : row + grid.tile, col : col + grid.tile] += 1
    return count


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (1, [0]),
        (256, [0]),
        (257, [0, 1]),
        (300, [0, 44]),
        (402, [0, 146]),
        (403, [0, 74, 147]),
        (512, [0, 128, 256]),
        (1000, [0, 124, 248, 372, 496, 620, 744]),
        (1424, [146 * i for i in range(9)]),
        (2128, [144 * i for i in range(14)]),
    ],
)
def test_dense_starts_of_the_thesis(length: int, starts: list[int]) -> None:
    assert list(axis_starts(length, 256, dense())) == starts


@pytest.mark.parametrize(
    ("length", "starts"),
    [(256, [0]), (1424, [0, 234, 468, 702, 936, 1168]), (2128, [234 * i for i in range(9)])],
)
def test_sparse_starts_of_the_thesis(length: int, starts: list[int]) -> None:
    assert list(axis_starts(length, 256, sparse())) == starts


def test_tiles_of_a_full_frame() -> None:
    thick, thin = (TileGrid.cover(*FULL, 256, rule) for rule in (dense(), sparse()))
    assert (thick.count, thin.count) == (126, 54)
    for grid, mean, shares in (
        (thick, 2.725, {1: 0.121, 2: 0.457, 4: 0.423}),
        (thin, 1.168, {1: 0.845, 2: 0.148, 4: 0.0065}),
    ):
        count = coverage(grid)
        assert count.mean() == pytest.approx(mean, abs=5e-4)
        assert set(np.unique(count)) == set(shares)
        for tiles, share in shares.items():
            assert (count == tiles).mean() == pytest.approx(share, abs=6e-4)


def check_axis(length: int, tile: int, rule: GridRule, longest_step: int) -> tuple[int, ...]:
    starts = axis_starts(length, tile, rule)
    assert starts[0] == 0
    if length <= tile:
        assert starts == (0,)
        return starts
    assert starts[-1] + tile == length
    steps = [after - before for before, after in pairwise(starts)]
    assert all(0 < step <= longest_step for step in steps)
    # One tile fewer could not reach the end.
    assert (len(starts) - 2) * longest_step < length - tile
    return starts


@given(st.integers(1, 5000))
@settings(deadline=None)
def test_the_grids_of_the_thesis_cover_any_length(length: int) -> None:
    starts = check_axis(length, 256, dense(), 146)
    steps = {after - before for before, after in pairwise(starts)}
    assert not steps or max(steps) - min(steps) <= 1  # evenly spread
    starts = check_axis(length, 256, sparse(), 234)
    assert all(start == 234 * i for i, start in enumerate(starts[:-1]))


@given(st.integers(1, 5000), st.integers(1, 600), st.data())
@settings(deadline=None)
def test_any_stride_or_overlap_covers(length: int, tile: int, data: st.DataObject) -> None:
    assume(length < 100 * tile)
    stride = data.draw(st.integers(1, tile), "stride")
    check_axis(length, tile, GridRule(stride=stride), stride)
    check_axis(length, tile, GridRule(overlap=tile - stride), stride)


def test_grids_that_would_leave_gaps_are_refused() -> None:
    for rule in (GridRule(stride=257), GridRule(stride=0), GridRule(overlap=256), GridRule(overlap=-1)):
        with pytest.raises(UsageError, match="256 packed pixels a side; expected a stride of 1 to 256 or"):
            TileGrid.cover(1000, 1000, 256, rule)
    for both in ({}, {"stride": 10, "overlap": 10}):
        with pytest.raises(ValueError, match="either"):
            GridRule(**both)


@pytest.mark.parametrize(("tile", "stride", "overlap"), [(64, 36, 5), (128, 73, 11), (256, 146, 22), (512, 292, 44)])
def test_the_grids_of_the_thesis_grow_and_shrink_with_the_tiles(tile: int, stride: int, overlap: int) -> None:
    """The same share of a picture is covered as often; a user's own numbers stay what they are."""
    assert dense().fitted(tile) == dense(tile).fitted(tile) == GridRule(stride=stride)
    assert sparse().fitted(tile) == sparse(tile).fitted(tile) == GridRule(overlap=overlap)
    assert GridRule(stride=33).fitted(tile) == GridRule(stride=33)
    height, width = 1424 * tile // 256, 2128 * tile // 256
    thick, thin = (TileGrid.cover(height, width, tile, rule, tile // 16) for rule in (dense(), sparse()))
    assert thin.count == 54 and thick.count in (126, 140)  # a row more where half a pixel of the stride was lost
    for grid, mean in ((thick, 2.725), (thin, 1.168)):
        count = coverage(grid)[:height, :width]
        assert count.min() == 1 and count.mean() == pytest.approx(mean, rel=0.12)


@pytest.mark.parametrize(("merge", "power"), MERGES)
@pytest.mark.parametrize("tile", [1, 7, 8, 256, 512])
def test_weights_are_positive_symmetric_and_largest_in_the_middle(tile: int, merge: Merge, power: float) -> None:
    weights = tile_weights(tile, merge, power)
    assert weights.shape == (tile, tile)
    assert weights.min() > 0
    assert weights.max() == weights[tile // 2, tile // 2] == 1
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert (weights == 1).all() == (merge == "idw" and power == 0) or tile == 1


def test_inverse_distance_weights_of_one_pixel() -> None:
    grid, weights = TileGrid.cover(*FULL, 256, dense()), tile_weights(256).astype(np.float64)
    found = {
        (row, col): weights[150 - row, 150 - col]
        for row in grid.rows
        for col in grid.cols
        if 0 <= 150 - row < 256 and 0 <= 150 - col < 256
    }
    total = sum(found.values())
    expected = {(0, 0): 0.8589, (0, 144): 0.0570, (146, 0): 0.0552, (146, 144): 0.0290}
    assert {origin: round(weight / total, 4) for origin, weight in found.items()} == expected
    # The centre of a tile lies between pixels: distances to (127.5, 127.5).
    assert weights[0, 0] / weights[127, 127] == pytest.approx(0.5 / (2 * 127.5**2), rel=1e-6)


@pytest.mark.parametrize(("merge", "power"), MERGES)
@pytest.mark.parametrize("rule", [dense(), sparse(), GridRule(stride=256), GridRule(stride=61)])
@pytest.mark.parametrize("size", [(257, 700), (100, 300), (256, 256), (403, 402)])
def test_crops_of_a_picture_merge_to_the_picture(
    size: tuple[int, int], rule: GridRule, merge: Merge, power: float
) -> None:
    picture = np.random.default_rng(0).random((1, *size), dtype=np.float32)
    grid = TileGrid.cover(*size, 256, rule)
    whole = merged(tiles_of(padded(picture, grid), grid), grid, tile_weights(256, merge, power), 1)
    assert np.abs(whole[:, : size[0], : size[1]] - picture).max() < 1e-6


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 20),
    st.sampled_from(MERGES),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_streaming_equals_the_formula(
    height: int, width: int, tile: int, merge: tuple[Merge, float], data: st.DataObject
) -> None:
    rule = GridRule(overlap=data.draw(st.integers(0, tile - 1), "overlap"))
    grid = TileGrid.cover(height, width, tile, rule)
    assume(grid.count < 500)
    rng = np.random.default_rng(height)
    # Tiles that disagree, with values outside [0, 1], which are clamped before merging.
    tiles = [rng.normal(0.5, 0.5, (2, tile, tile)).astype(np.float32) for _ in range(grid.count)]
    weights = tile_weights(tile, *merge)
    streamed = merged(iter([each.copy() for each in tiles]), grid, weights, 2)
    np.testing.assert_allclose(streamed, merged_at_once(iter(tiles), grid, weights, 2), rtol=0, atol=2e-6)


def test_a_blender_can_be_used_again() -> None:
    grid = TileGrid.cover(20, 30, 8, GridRule(stride=5))
    blender = BandBlender(grid.rows, grid.cols, 30, 1, tile_weights(8))
    for seed in (0, 1):
        picture = np.random.default_rng(seed).random((1, 20, 30), dtype=np.float32)
        whole = np.concatenate([band.copy() for _, band in blender.merge(tiles_of(picture, grid))], axis=1)
        np.testing.assert_allclose(whole, picture, rtol=0, atol=1e-6)


def test_rows_of_tiles_may_lie_anyhow_and_little_is_kept_of_them() -> None:
    grid = replace(TileGrid.cover(60, 30, 12, GridRule(stride=6)), rows=tuple(i * (i + 1) // 2 for i in range(11)))
    picture = np.random.default_rng(0).random((1, grid.rows[-1] + 12, 30), dtype=np.float32)
    blender = BandBlender(grid.rows, grid.cols, 30, 1, tile_weights(12))
    whole = np.concatenate([band.copy() for _, band in blender.merge(tiles_of(picture, grid))], axis=1)
    np.testing.assert_allclose(whole, picture, rtol=0, atol=1e-6)
    assert 0 < len(blender._scales) <= MOST_SCALES < len(grid.rows)


@pytest.mark.parametrize(
    ("rule", "merge", "bound"),
    [(dense(), "idw", 0.5), (dense(), "feather", 0.02), (sparse(), "idw", 0.5), (sparse(), "feather", 0.06)],
)
def test_disagreeing_tiles_meet_in_a_bounded_step(rule: GridRule, merge: Merge, bound: float) -> None:
    grid = TileGrid.cover(403, 700, 256, rule)
    values = [(i // len(grid.cols) + i % len(grid.cols)) % 2 for i in range(grid.count)]
    tiles = (np.full((1, 256, 256), value, dtype=np.float32) for value in values)
    whole = merged(tiles, grid, tile_weights(256, merge), 1)[0]
    assert whole.min() == 0 and whole.max() > 0.7
    step = max(float(np.abs(np.diff(whole, axis=axis)).max()) for axis in (0, 1))
    assert step < bound


def test_a_merge_that_was_given_up_leaves_nothing_behind() -> None:
    grid = TileGrid.cover(20, 30, 8, GridRule(stride=5))
    blender = BandBlender(grid.rows, grid.cols, 30, 1, tile_weights(8))
    given_up = blender.merge(tiles_of(np.ones((1, 20, 30), np.float32), grid))
    next(given_up)
    given_up.close()
    picture = np.random.default_rng(0).random((1, 20, 30), dtype=np.float32)
    whole = np.concatenate([band.copy() for _, band in blender.merge(tiles_of(picture, grid))], axis=1)
    np.testing.assert_allclose(whole, picture, rtol=0, atol=1e-6)


@pytest.mark.parametrize("merge", ["idw", "feather"])
def test_a_halo_fades_the_border_and_leaves_the_rest(merge: Merge) -> None:
    plain, faded = tile_weights(16, merge), tile_weights(16, merge, halo_px=4)
    np.testing.assert_allclose(faded[4:-4, 4:-4], plain[4:-4, 4:-4], rtol=1e-6)
    shares = [(0.5 / 4) ** 2, (1.5 / 4) ** 2, (2.5 / 4) ** 2, (3.5 / 4) ** 2]
    np.testing.assert_allclose((faded / plain)[:4, 8], shares, rtol=1e-5)
    np.testing.assert_allclose((faded / plain)[8, :4], shares, rtol=1e-5)
