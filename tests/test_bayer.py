"""Packing: the four CFA phases, odd sizes, bands and levels."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_restorer import frame_of

from lowlight.core.photo import BGGR, GBRG, GRBG, RGGB, CfaPattern, PerColour, RawFrame
from lowlight.raw.bayer import (
    in_blocks,
    normalise,
    origin_padding,
    pack,
    pack_mosaic,
    packed_size,
    plane_offsets,
)

PATTERNS: dict[str, CfaPattern] = {"RGGB": RGGB, "GRBG": GRBG, "GBRG": GBRG, "BGGR": BGGR}
PADDING = {"RGGB": (0, 0), "GRBG": (0, 1), "GBRG": (1, 0), "BGGR": (1, 1)}
sizes = st.integers(2, 13)
patterns = st.sampled_from(list(PATTERNS.values()))


def frame(
    mosaic: npt.NDArray[np.generic],
    pattern: CfaPattern,
    black: PerColour = (0, 0, 0, 0),
    white: PerColour = (1, 1, 1, 1),
) -> RawFrame:
    return RawFrame(mosaic.astype(np.uint16), pattern, black, white, (1, 1, 1, 1), "camera", None)


def colours(size: tuple[int, int], pattern: CfaPattern) -> npt.NDArray[np.int64]:
    """The colour index of each pixel."""
    repeats = size[0] // 2 + 1, size[1] // 2 + 1
    return np.tile(np.array(pattern), repeats)[: size[0], : size[1]]


def distinct(size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Every pixel its own value."""
    return np.arange(1, size[0] * size[1] + 1).reshape(size)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_origin_becomes_red(name: str) -> None:
    pattern = PATTERNS[name]
    assert origin_padding(pattern) == PADDING[name]
    assert plane_offsets(pattern) == ((0, 0), (0, 1), (1, 1), (1, 0))


@given(sizes, sizes, patterns)
def test_in_blocks_a_packed_pixel_is_a_block_of_the_mosaic(height: int, width: int, pattern: CfaPattern) -> None:
    values = distinct((height, width))
    changed = in_blocks(frame(values, pattern))
    assert origin_padding(changed.pattern) == (0, 0) and changed.size == (height, width)
    planes = pack(changed).numpy()
    assert planes.shape == (4, (height + 1) // 2, (width + 1) // 2)
    for row in range(height // 2):  # whole blocks
        for col in range(width // 2):
            block = values[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
            told = dict(zip(np.array(pattern).ravel(), block.ravel(), strict=True))
            assert [told[colour] for colour in range(4)] == planes[:, row, col].tolist()


def test_greens_the_other_way_round_keep_their_index() -> None:
    # The first green in the file may have index 3; planes stay in index order.
    assert plane_offsets(((0, 3), (1, 2))) == ((0, 0), (1, 0), (1, 1), (0, 1))
    with pytest.raises(ValueError, match="no red"):
        origin_padding(((1, 1), (3, 2)))


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9), (7, 9), (2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("name", PATTERNS)
def test_each_plane_holds_its_colour_alone(name: str, size: tuple[int, int]) -> None:
    pattern = PATTERNS[name]
    planes = pack(frame(10 * colours(size, pattern) + 10, pattern))
    assert planes.dtype == torch.float32
    assert planes.shape == (4, *packed_size(size, pattern))
    for colour in range(4):
        assert (planes[colour] == 10 * colour + 10).all()


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9), (7, 9)])
@pytest.mark.parametrize("name", PATTERNS)
def test_each_pixel_lands_in_its_place(name: str, size: tuple[int, int]) -> None:
    mosaic, (top, left) = distinct(size), PADDING[name]
    planes = pack(frame(mosaic, PATTERNS[name])).numpy()
    back = np.empty((2 * planes.shape[1], 2 * planes.shape[2]))
    back[0::2, 0::2], back[0::2, 1::2], back[1::2, 1::2], back[1::2, 0::2] = planes
    inner = back[top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(inner, mosaic)
    # What was put around it is mirrored about the outermost pixels.
    if top:
        np.testing.assert_array_equal(back[0, left : left + size[1]], mosaic[1])
    if left:
        np.testing.assert_array_equal(back[top : top + size[0], 0], mosaic[:, 1])
    if back.shape[0] > top + size[0]:
        np.testing.assert_array_equal(back[-1, left : left + size[1]], mosaic[-2])
    if back.shape[1] > left + size[1]:
        np.testing.assert_array_equal(back[top : top + size[0], -1], mosaic[:, -2])


@given(sizes, sizes, patterns, st.data())
def test_bands_are_cut_from_the_whole(height: int, width: int, pattern: CfaPattern, data: st.DataObject) -> None:
    photo = frame(distinct((height, width)), pattern, (3, 1, 2, 0), (99, 98, 97, 96))
    whole = pack(photo, clip=False)
    rows = packed_size((height, width), pattern)[0]
    start = data.draw(st.integers(0, rows - 1), "start")
    stop = data.draw(st.integers(start + 1, rows), "stop")
    assert torch.equal(pack(photo, start, stop, clip=False), whole[:, start:stop])


@given(st.integers(0, 1), st.integers(0, 1), patterns)
def test_windows_shifted_by_a_pixel_have_the_same_planes(down: int, right: int, pattern: CfaPattern) -> None:
    mosaic = distinct((20, 24))
    shifted = tuple(tuple(pattern[(row + down) % 2][(col + right) % 2] for col in (0, 1)) for row in (0, 1))
    whole = pack(frame(mosaic, pattern))
    window = pack(frame(mosaic[down:, right:], shifted))  # type: ignore[arg-type]
    # Where the window's first packed pixel lies among those of the whole.
    (top, left), (window_top, window_left) = origin_padding(pattern), origin_padding(shifted)  # type: ignore[arg-type]
    row, col = (down + top - window_top) // 2, (right + left - window_left) // 2
    inner = window[:, 1:-1, 1:-1]
    expected = whole[:, row + 1 :, col + 1 :][:, : inner.shape[1], : inner.shape[2]]
    assert torch.equal(inner, expected)


def test_levels_are_per_colour_and_only_black_is_clipped() -> None:
    black, white = (500.0, 512.0, 520.0, 530.0), (1500.0, 1512.0, 2520.0, 1030.0)
    values = np.array([[600, 500], [1030, 3520]])  # R, G1 / G2, B
    photo = frame(values, RGGB, black, white)
    expected = [0.1, -0.012, 1.5, 1.0]
    assert pack(photo, clip=False).flatten().tolist() == pytest.approx(expected)
    assert pack(photo).flatten().tolist() == pytest.approx([0.1, 0.0, 1.5, 1.0])
    assert photo.mosaic.tolist() == values.tolist()


@pytest.mark.parametrize("clip", [True, False])
def test_tensors_and_frames_are_packed_alike(clip: bool) -> None:
    rng = np.random.default_rng(0)
    mosaic = rng.integers(400, 16384, (12, 16))
    photo = frame(mosaic, RGGB, (512, 510, 514, 512), (16383, 16383, 16000, 16383))
    split = pack_mosaic(torch.from_numpy(mosaic.astype(np.float32)), plane_offsets(RGGB))
    levels = torch.tensor(photo.black), torch.tensor(photo.white)
    one = normalise(split, *levels, clip=clip)
    torch.testing.assert_close(one, pack(photo, clip=clip), rtol=1e-6, atol=1e-7)
    assert one.min() == 0 if clip else one.min() < 0
    # A batch may have levels of its own for each item.
    batch = normalise(split.repeat(2, 1, 1, 1), *(torch.stack((v, v + 1)) for v in levels), clip=clip)
    assert torch.equal(batch[0], one)
    torch.testing.assert_close(batch[1], normalise(split - 1, *levels, clip=clip), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("size", [(7, 8), (6, 9), (7, 9)])
def test_in_blocks_a_cut_block_holds_its_colours(name: str, size: tuple[int, int]) -> None:
    pattern = PATTERNS[name]
    mosaic = np.tile(np.array(pattern, np.uint16) + 1, (5, 5))[: size[0], : size[1]]
    planes = pack(in_blocks(frame_of(mosaic, pattern))) * 65535
    for colour in range(4):
        assert planes[colour].round().unique().tolist() == [colour + 1]
