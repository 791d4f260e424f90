"""Colours of cameras that training pairs are made with."""

import torch

from lowlight.data.cameras import XYZ_TO_CAMERA, draw_gains, draw_matrices, srgb_to_camera_matrices


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_white_stays_white_in_every_camera() -> None:
    matrices = srgb_to_camera_matrices()
    assert matrices.shape == (len(XYZ_TO_CAMERA), 3, 3)
    assert torch.allclose(matrices.sum(-1), torch.ones(len(matrices), 3), atol=1e-6)


def test_each_camera_sees_each_primary_mostly_in_its_own_channel() -> None:
    for name, matrix in zip(XYZ_TO_CAMERA, srgb_to_camera_matrices(), strict=True):
        assert matrix.argmax(0).tolist() == [0, 1, 2], name


def test_drawn_cameras_lie_between_the_real_ones_and_can_be_undone() -> None:
    real, drawn = srgb_to_camera_matrices(), draw_matrices(200, generator())
    assert torch.allclose(drawn.sum(-1), torch.ones(200, 3), atol=1e-5)
    assert (drawn >= real.amin(0) - 1e-5).all()
    assert (drawn <= real.amax(0) + 1e-5).all()
    assert drawn.std(0).max() > 0.02
    assert torch.linalg.cond(drawn).max() < 20


def test_gains_are_those_of_plausible_light() -> None:
    gains = draw_gains(500, generator())
    assert torch.equal(gains[:, 1], gains[:, 3])
    assert torch.allclose(gains.amin(1), torch.ones(500))
    assert gains.max() < 4
    # Warm light needs little red and much blue gain, and the other way round.
    assert torch.corrcoef(gains[:, [0, 2]].T)[0, 1] < -0.5
