"""Curves, exposure, the base picture and Gaussians."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from lowlight.core.colorimetry import SRGB_TO_XYZ
from lowlight.core.restoration import Gaussian
from lowlight.ops.color import (
    LIBRAW_POWER,
    LUMA,
    apply_matrix,
    decode,
    encode,
    libraw_knee,
    luma,
    srgb_decode,
)
from lowlight.ops.exposure import (
    amplify,
    block_means,
    choose_ratio,
    develop_means,
    lowpass_base,
    packed_to_rgb,
    upsample_window,
)
from lowlight.ops.gaussian import clamp_log_variance, draw, kl_divergence, standard_noise


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=rng(seed))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed))


# Curves


def test_curve_is_continuous_in_value_and_slope() -> None:
    knee, offset = libraw_knee()
    assert 4.5 * knee == pytest.approx((1 + offset) * knee**LIBRAW_POWER - offset, abs=1e-12)
    assert pytest.approx((1 + offset) * LIBRAW_POWER * knee ** (LIBRAW_POWER - 1), abs=1e-9) == 4.5
    # Rec. 709 has the power 0.45 instead of 1/2.222, and its constants are nearly the same.
    assert (knee, offset) == pytest.approx((0.018054, 0.099297), abs=2e-4)


def test_curve_is_nearly_that_of_rec_709() -> None:
    linear = torch.linspace(0, 1, 2001, dtype=torch.float64)
    rec_709 = torch.where(linear < 0.018, 4.5 * linear, 1.099 * linear**0.45 - 0.099)
    assert (encode(linear) - rec_709).abs().max() < 5e-4
    assert encode(linear)[[0, -1]].tolist() == [0, 1]
    assert (encode(linear).diff() > 0).all()
    # Middle gray comes out at 41 % of white.
    assert float(encode(torch.tensor(0.18))) == pytest.approx(0.409, abs=1e-3)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_decode_undoes_encode(dtype: torch.dtype, error: float) -> None:
    # Beyond [0, 1] as well: nothing is clipped.
    values = torch.linspace(-0.2, 1.5, 4001, dtype=dtype)
    assert (decode(encode(values)) - values).abs().max() < error
    assert (encode(decode(values)) - values).abs().max() < 5 * error


def test_gradients_of_the_curves_are_finite() -> None:
    values = torch.tensor([-0.1, 0.0, 0.01, 0.5, 1.0, 1.2], requires_grad=True)
    for curve in (encode, decode, srgb_decode):
        (gradient,) = torch.autograd.grad(curve(values).sum(), values)
        assert gradient.isfinite().all()
        assert (gradient > 0).all()


def test_srgb_curve_at_known_values() -> None:
    encoded = torch.tensor([0.0, 0.04045, 0.5, 188 / 255, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0031308, 0.2140411, 0.5028865, 1.0], dtype=torch.float64)
    torch.testing.assert_close(srgb_decode(encoded), expected, rtol=0, atol=1e-6)


def test_matrix_acts_on_each_pixel() -> None:
    rgb, matrices = uniform(2, 3, 4, 5), normal(2, 3, 3)
    expected = torch.einsum("bij,bjhw->bihw", matrices, rgb)
    torch.testing.assert_close(apply_matrix(rgb, matrices), expected)
    torch.testing.assert_close(apply_matrix(rgb[0], matrices[1])[:, 2, 3], matrices[1] @ rgb[0, :, 2, 3])
    assert apply_matrix(rgb[0], matrices).shape == (2, 3, 4, 5)
    # White in sRGB is D65.
    white = apply_matrix(torch.ones(3, 1, 1), torch.tensor(SRGB_TO_XYZ)).flatten()
    torch.testing.assert_close(white, torch.tensor([0.95047, 1.0, 1.08883]), rtol=0, atol=1e-4)


def test_luma_weighs_the_colours() -> None:
    rgb = uniform(2, 3, 4, 5)
    expected = sum(weight * rgb[:, i] for i, weight in enumerate(LUMA))
    torch.testing.assert_close(luma(rgb)[:, 0], expected)
    assert sum(LUMA) == pytest.approx(1)


# Amplifying and metering


def test_amplify_clips_before_and_after_the_balance() -> None:
    packed = torch.tensor([0.1, 0.3, 0.6, 0.002]).view(4, 1, 1)
    kept = packed.clone()
    gains = torch.tensor([2.0, 1.0, 1.5, 1.0])
    assert amplify(packed, 2.0, None, "raw").flatten().tolist() == pytest.approx([0.2, 0.6, 1.0, 0.004])
    assert amplify(packed, 2.0, gains, "wb").flatten().tolist() == pytest.approx([0.4, 0.6, 1.0, 0.004])
    assert torch.equal(packed, kept)
    with pytest.raises(ValueError, match="gains"):
        amplify(packed, 2.0, None, "wb")


def test_amplify_keeps_a_clipped_white_white_in_any_balance() -> None:
    clipped = amplify(torch.full((4, 2, 2), 0.7), 3.0, torch.tensor([2.1, 1.0, 1.4, 1.0]), "wb")
    assert (clipped == 1).all()


def test_amplify_takes_one_ratio_and_balance_per_item() -> None:
    packed, ratio = uniform(2, 3, 4, 5, 6) / 400, torch.tensor([100.0, 300.0]).view(2, 1, 1, 1, 1)
    gains = 1 + uniform(2, 1, 4, seed=1)
    bright = amplify(packed, ratio, gains, "wb")
    one = amplify(packed[1, 2], 300.0, gains[1, 0], "wb")
    torch.testing.assert_close(bright[1, 2], one)


@pytest.mark.parametrize("shape", [(4, 32, 48), (4, 33, 47), (2, 3, 4, 9, 20), (5, 3)])
def test_block_means_average_what_is_there(shape: tuple[int, ...]) -> None:
    planes, block = uniform(*shape), 8
    means = block_means(planes, block)
    height, width = shape[-2:]
    assert means.shape == (*shape[:-2], math.ceil(height / block), math.ceil(width / block))
    for row in range(means.shape[-2]):
        for col in range(means.shape[-1]):
            window = planes[..., row * block : (row + 1) * block, col * block : (col + 1) * block]
            torch.testing.assert_close(means[..., row, col], window.mean((-2, -1)))


def scene(height: int = 128, width: int = 192, seed: int = 0) -> torch.Tensor:
    """A smooth packed frame with shadows and lights, around 0.002 of white."""
    coarse = torch.exp(normal(1, 4, 5, 7, seed=seed) * 0.8) * 0.002
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp_min(1e-5)[0]


@given(st.integers(0, 200), st.floats(0.2, 5))
@settings(max_examples=20, deadline=None)
def test_ratio_is_inverse_to_light(seed: int, light: float) -> None:
    frame = scene(64, 96, seed)
    ratio = choose_ratio(frame)
    assert 1 < ratio < 300
    assert choose_ratio(frame * light) == pytest.approx(min(max(ratio / light, 1), 300), rel=1e-4)


def test_ratio_does_not_follow_noise() -> None:
    for seed in range(5):
        frame = scene(seed=seed)
        # Read noise three times the signal, and signed: half of it lies below black.
        noisy = frame + 0.006 * normal(*frame.shape, seed=seed)
        assert abs(math.log2(choose_ratio(noisy) / choose_ratio(frame))) < 0.25


def test_ratio_does_not_follow_a_light_source_or_other_colours() -> None:
    frame = scene()
    ratio = choose_ratio(frame)
    lit = frame.clone()
    lit[:, 18:30, 34:62] = 1.0  # two blocks of 96, hundreds of times as bright as the rest
    assert abs(math.log2(choose_ratio(lit) / ratio)) < 0.25
    red = frame.clone()
    red[[0, 2]] *= 3
    assert choose_ratio(red) == ratio
    turned = choose_ratio(frame.flip(-1))
    assert turned == pytest.approx(ratio, rel=1e-3)


def test_ratio_stays_in_its_range() -> None:
    for level, expected in ((0.9, 1.0), (1e-6, 300.0), (0.0, 300.0), (-0.01, 300.0)):
        assert choose_ratio(torch.full((4, 40, 40), level)) == expected
    assert choose_ratio(torch.full((4, 1, 1), 0.016)) == pytest.approx(10)


# The base picture


def test_base_is_the_developed_mean_of_each_block() -> None:
    balanced, matrix = (
        uniform(4, 32, 40),
        torch.tensor([[1.8, -0.6, -0.2], [-0.3, 1.6, -0.3], [0.1, -0.7, 1.6]]),
    )
    camera = lowpass_base(balanced, "camera", matrix)
    assert camera.shape == (3, 2, 3)
    block = balanced[:, :16, 16:32].mean((1, 2))
    means = torch.stack((block[0], (block[1] + block[3]) / 2, block[2]))
    torch.testing.assert_close(camera[:, 0, 1], encode(means))
    srgb = lowpass_base(balanced, "srgb", matrix)
    torch.testing.assert_close(srgb[:, 0, 1], encode((matrix @ means).clamp(0, 1)))
    torch.testing.assert_close(lowpass_base(balanced, "srgb", None), camera)
    assert lowpass_base(balanced.expand(2, 1, 4, 32, 40), "camera", None).shape == (2, 1, 3, 2, 3)
    torch.testing.assert_close(lowpass_base(torch.ones(4, 32, 40), "srgb", matrix), torch.ones(3, 2, 3))
    torch.testing.assert_close(
        develop_means(packed_to_rgb(balanced), "camera", None)[1], encode((balanced[1] + balanced[3]) / 2)
    )


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 60), st.integers(0, 60), st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_a_window_is_cut_from_the_whole(rows: int, cols: int, top: int, left: int, upscale: int) -> None:
    coarse, block, size = uniform(2, 3, rows, cols, seed=rows), 16, 24
    whole = upsample_window(coarse, 0, 0, 96, upscale, block)
    window = upsample_window(coarse, top, left, size, upscale, block)
    expected = whole[..., top * upscale : (top + size) * upscale, left * upscale : (left + size) * upscale]
    torch.testing.assert_close(window[..., : expected.shape[-2], : expected.shape[-1]], expected)


@pytest.mark.parametrize("upscale", [1, 2])
def test_upsampling_is_bilinear_about_block_centres(upscale: int) -> None:
    coarse = uniform(1, 3, 6, 6)
    fine = upsample_window(coarse, 0, 0, 96, upscale, 16)
    expected = F.interpolate(coarse, scale_factor=16 * upscale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(fine, expected, rtol=0, atol=1e-5)


# Gaussians


def gaussian(seed: int, shape: tuple[int, int] = (3, 50)) -> Gaussian:
    return Gaussian(normal(*shape, seed=seed), normal(*shape, seed=seed + 100))


@pytest.mark.parametrize("unit_prior", [True, False])
def test_kl_equals_that_of_torch(unit_prior: bool) -> None:
    q, p = gaussian(0), gaussian(1)
    if unit_prior:
        p = Gaussian(p.mean, torch.zeros_like(p.mean))
    double_q, double_p = (Normal(g.mean.double(), (0.5 * g.log_variance.double()).exp()) for g in (q, p))
    expected = torch_kl(double_q, double_p).sum(1)
    assert kl_divergence(q, p).shape == (3,)
    torch.testing.assert_close(kl_divergence(q, p).double(), expected, rtol=1e-6, atol=1e-6)


def test_kl_of_a_distribution_to_itself_is_zero_and_half_precision_is_safe() -> None:
    q, p = gaussian(0), gaussian(1)
    assert (kl_divergence(q, q) == 0).all()
    wide = Gaussian(q.mean.half() * 300, q.log_variance.half())  # squares beyond the range of float16
    assert kl_divergence(wide, Gaussian(p.mean.half(), p.log_variance.half())).isfinite().all()


def test_a_draw_has_the_mean_and_variance_it_should_and_is_in_the_graph() -> None:
    mean, log_variance = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.0, math.log(9.0)]])
    mean.requires_grad_()
    log_variance.requires_grad_()
    noise = standard_noise(torch.empty(20000, 2), rng())
    samples = draw(Gaussian(mean, log_variance), noise)
    np.testing.assert_allclose(samples.mean(0).detach(), [2, -1], atol=0.1)
    np.testing.assert_allclose(samples.var(0).detach(), [1, 9], rtol=0.05)
    samples.sum().backward()
    assert mean.grad is not None and log_variance.grad is not None
    torch.testing.assert_close(log_variance.grad, 0.5 * torch.tensor([[1.0, 3.0]]) * noise.sum(0))


def test_noise_comes_from_its_generator_alone() -> None:
    like = torch.empty(2, 3, dtype=torch.float64)
    first = standard_noise(like, rng(5))
    torch.rand(7)
    assert torch.equal(first, standard_noise(like, rng(5)))
    assert first.dtype == torch.float64
    assert not torch.equal(first, standard_noise(like, rng(6)))


def test_log_variances_are_kept_in_range() -> None:
    assert clamp_log_variance(torch.tensor([-99.0, 0.5, 99.0])).tolist() == [-10, 0.5, 10]
