"""Views of a scene: the same light from another corner, and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_restorer import PHASES, Copy, apart, fp32, frame_of, night_frame, random_mosaic, tiny
from torch import nn

from lowlight.burst import AlignedFrame, Burst
from lowlight.core.errors import ConfigError, UsageError
from lowlight.core.photo import CfaPattern
from lowlight.models import model_config
from lowlight.ops.tiling import GridRule, sparse
from lowlight.raw.bayer import pack
from lowlight.restorer import Restorer
from lowlight.views import VIEWS, View, add_to_mean

__all__ = ["tiny"]
UNLIKE_GREENS = {"black": (0.0, 300.0, 150.0, 700.0), "white": (65535.0, 60000.0, 64000.0, 50000.0)}


def test_views_are_different_and_begin_with_the_scene_itself() -> None:
    for count, views in VIEWS.items():
        assert len(set(views)) == count == len(views)
        assert views[0] == View()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.sampled_from(PHASES), st.sampled_from([2, 4, 8]))
def test_every_view_is_turned_back_to_where_it_came_from(
    height: int, width: int, pattern: CfaPattern, count: int
) -> None:
    frame = frame_of(random_mosaic(height, width), pattern, **UNLIKE_GREENS)
    one, several = (Restorer(Copy(), fp32(ensemble=n), "cpu").photo(frame, 1.0).pixels for n in (1, count))
    assert apart(one, several).max() <= 1


@pytest.mark.parametrize("pattern", PHASES)
@pytest.mark.parametrize("size", [(8, 10), (9, 10), (8, 11), (9, 11)])
@pytest.mark.parametrize("view", VIEWS[8])
def test_a_view_is_a_bayer_frame_whose_first_green_lies_beside_red(
    view: View, pattern: CfaPattern, size: tuple[int, int]
) -> None:
    frame = frame_of(random_mosaic(*size), pattern, **UNLIKE_GREENS)
    seen = view.frame(frame)
    assert np.shares_memory(seen.mosaic, frame.mosaic)
    assert seen.pattern in PHASES
    # Each colour keeps its values: what one pixel is in the frame, it is in the view.
    for colour in (0, 2):
        lit = np.sort(frame.mosaic[_places(frame.pattern, colour, frame.size)])
        np.testing.assert_array_equal(lit, np.sort(seen.mosaic[_places(seen.pattern, colour, seen.size)]))
    greens = {
        level: np.sort(frame.mosaic[_places(frame.pattern, c, frame.size)])
        for c, level in enumerate(frame.black)
        if c % 2
    }
    for colour, level in enumerate(seen.black):
        if colour % 2:
            np.testing.assert_array_equal(greens[level], np.sort(seen.mosaic[_places(seen.pattern, colour, seen.size)]))


def test_views_of_many_tiles_and_windows(tiny: nn.Module) -> None:
    restorer = Restorer(tiny, fp32(ensemble=4, grid=GridRule(stride=40)), "cpu")
    frame = night_frame(540, 601)
    whole = restorer.photo(frame, 60.0).pixels
    window = restorer.photo(frame, 60.0, window=(301, 78, 95, 60)).pixels
    assert apart(window, whole[78:138, 301:396]).max() <= 2
    single = Restorer(tiny, fp32(grid=sparse(), ensemble=1), "cpu")
    alone = [np.empty_like(whole) for _ in VIEWS[4]]
    for picture, view in zip(alone, VIEWS[4], strict=True):
        view.seen(picture)[...] = single.photo(view.frame(frame), 60.0).pixels
    # Not exactly: the mean is taken before the picture is developed, and the first view has a grid of its own.
    assert apart(whole, np.mean(alone, 0)).mean() < 0.004 * 65535
    assert apart(whole, alone[0]).max() > 100, "the network answered all views alike, so nothing was tested"


def test_frames_of_a_burst_are_turned_with_their_shifts_and_trust() -> None:
    light = random_mosaic(48, 66) // 2
    moved = np.roll(light, (4, -2), (0, 1))  # content 2 packed pixels further down and 1 further left
    rows, cols = torch.arange(3.0)[:, None], torch.arange(5.0)[None]
    trust = 0.2 + 0.05 * rows + 0.1 * cols  # linear, so that it can be taken at other places without loss
    frames = (
        AlignedFrame(frame_of(light)),
        AlignedFrame(frame_of(moved // 2), gain=1.5, shift=(2.0, -1.0), variance=0.5, trust=trust),
    )
    one, eight = (Restorer(Copy(), fp32(ensemble=n), "cpu").photo(Burst(frames), 1.0).pixels for n in (1, 8))
    inside = (slice(14, -14), slice(14, -14))  # beside the outermost blocks trust is held, and views have others
    # A packed pixel of a view covers other sensor pixels, and trust differs from one to the next.
    assert apart(one[inside], eight[inside]).max() <= 80
    unmoved = Burst((frames[0], AlignedFrame(frames[1].frame, 1.5, (0.0, 0.0), 0.5, trust)))
    other = Restorer(Copy(), fp32(ensemble=1), "cpu").photo(unmoved, 1.0).pixels
    assert apart(one, other).mean() > 500, "the shift made no difference, so nothing was tested"


def test_hypotheses_are_of_one_view() -> None:
    class Sampled(Copy):
        pass

    network = Sampled()
    restorer = Restorer(network, fp32(ensemble=4), "cpu")
    restorer.photo(frame_of(random_mosaic(64, 64)), 1.0, noise=())
    assert sum(network.calls) == 1
    restorer.photo(frame_of(random_mosaic(64, 64)), 1.0)
    assert sum(network.calls) == 1 + 4


def test_weights_recommend_an_ensemble_and_users_decide() -> None:
    network = Copy(ensemble=4)
    frame = frame_of(random_mosaic(64, 64))
    for asked, views in ((None, 4), (1, 1), (8, 8)):
        network.calls.clear()
        Restorer(network, fp32(ensemble=asked), "cpu").photo(frame, 1.0)
        assert sum(network.calls) == views
    assert model_config("sid-net", {"upscale": 2, "ensemble": 4}).traits().ensemble == 4
    for options in ({"ensemble": 2}, {"upscale": 2, "ensemble": 3}):
        with pytest.raises(ConfigError, match="ensemble"):
            model_config("sid-net", options)


def test_impossible_ensembles_are_refused() -> None:
    with pytest.raises(UsageError, match="1, 2, 4, 8"):
        fp32(ensemble=3)
    with pytest.raises(UsageError, match="half the sensor's size"):
        Restorer(Copy(upscale=1), fp32(ensemble=2), "cpu")


@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_means_are_rounded_and_not_biased(count: int, seed: int) -> None:
    pictures = np.random.default_rng(seed).integers(0, 65536, (count, 4, 5, 3), dtype=np.uint16)
    mean = pictures[0].copy()
    for number, picture in enumerate(pictures[1:], 2):
        add_to_mean(mean, picture.astype(np.float32), number)
    assert np.abs(mean - pictures.mean(0)).max() <= (count + 1) / 4 + 1e-2


def test_a_view_of_another_corner_is_packed_from_there() -> None:
    mosaic = np.arange(36, dtype=np.uint16).reshape(6, 6)
    seen = View(flip_cols=True).frame(frame_of(mosaic))
    planes = pack(seen) * 65535
    assert planes.shape == (4, 3, 4)
    assert planes[0, 0].round().tolist() == [4.0, 4.0, 2.0, 0.0]  # a column mirrored in front, then red from the right


def _places(pattern: CfaPattern, colour: int, size: tuple[int, int]) -> np.ndarray:
    rows, cols = np.indices(size)
    where: np.ndarray = np.array(pattern)[rows % 2, cols % 2] == colour
    return where
