"""Pyramids: exact both ways, and blind to what has no detail."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lapcvae_material import generator, numbers

from lowlight.core.restoration import Share
from lowlight.ops.grade import draw_grade
from lowlight.ops.pyramid import decompose, down, gaussian_pyramid, recompose, reflect_pad, up

FILTERS = ("box", "binomial")


@pytest.mark.parametrize("kind", FILTERS)
@settings(deadline=None, max_examples=25)
@given(levels=st.integers(1, 5), height=st.integers(1, 40), width=st.integers(1, 40))
def test_recomposing_is_exact(kind: str, levels: int, height: int, width: int) -> None:
    x = numbers(2, 3, height, width)
    bands = decompose(x, levels, kind)
    assert len(bands) == levels
    pictures = recompose(bands, (height, width), kind)
    assert pictures[0].shape == x.shape
    assert (pictures[0] - x).abs().max() < 1e-6
    assert all(fine.shape[-1] == 2 * coarse.shape[-1] for fine, coarse in pairwise(pictures[1:]))


@pytest.mark.parametrize("kind", FILTERS)
def test_pictures_of_the_pyramid_come_back_too(kind: str) -> None:
    x = numbers(1, 3, 32, 64)
    for fine, coarse in zip(recompose(decompose(x, 4, kind), kind=kind), gaussian_pyramid(x, 4, kind), strict=True):
        assert torch.allclose(fine, coarse, atol=1e-6)


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("side", [2, 4, 16])
def test_a_constant_has_no_detail(kind: str, side: int) -> None:
    band, coarse = decompose(torch.full((1, 2, side, side), 0.7), 2, kind)
    assert band.abs().max() < 1e-6
    assert torch.allclose(coarse, torch.tensor(0.7))


@pytest.mark.parametrize("kind", FILTERS)
def test_a_ramp_has_no_detail_inside(kind: str) -> None:
    ramp = torch.arange(32.0).view(1, 1, 1, -1) + 2 * torch.arange(32.0).view(1, 1, -1, 1)
    band, _ = decompose(ramp, 2, kind)
    assert band[..., 4:-4, 4:-4].abs().max() < 1e-4
    assert band.abs().max() > 0.1  # the border is another matter


def test_binomial_filter_by_hand() -> None:
    spike = torch.zeros(1, 1, 8, 8)
    spike[..., 4, 4] = 1
    assert torch.allclose(down(spike, "binomial")[0, 0, 2, 1:4], torch.tensor([1.0, 6.0, 1.0]) * 6 / 256)
    coarse = torch.zeros(1, 1, 4, 4)
    coarse[..., 2, 2] = 1
    row = up(coarse, "binomial")[0, 0, 4]
    assert torch.allclose(row[2:7], torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 8 * 6 / 8)


def test_reflection_repeats_on_short_sides() -> None:
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert reflect_pad(x, 2, 0, 3, 2).shape == (1, 1, 3, 7)
    assert reflect_pad(x, 0, 0, 3, 2)[0, 0, 0].tolist() == [2, 1, 2, 1, 2, 1, 2]


def test_a_grade_is_the_same_at_every_size_and_leaves_others_alone() -> None:
    flat = torch.full((8, 3, 64, 64), 0.4)
    grade = draw_grade(flat, 0.5, generator(3))
    on = grade.on.flatten()
    assert 0 < on.sum() < 8
    graded, coarse = grade(flat), grade(down(flat))
    assert torch.equal(graded[~on], flat[~on])
    assert (graded[on] - flat[on]).abs().mean() > 0.02
    assert torch.allclose(down(graded), coarse, atol=0.01)
    steps = (graded[..., 1:] - graded[..., :-1]).abs().max()
    assert steps < 0.03  # it varies slowly


def test_a_share_of_a_batch_is_graded_as_in_the_whole() -> None:
    x = numbers(6, 3, 8, 8)
    whole = draw_grade(x, 0.5, generator(1))(x)
    part = draw_grade(x[2:5], 0.5, generator(1), Share(2, 6))(x[2:5])
    assert torch.equal(part, whole[2:5])
