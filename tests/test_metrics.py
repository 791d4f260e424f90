"""Metrics against values known by hand and against scikit-image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lowlight.core.errors import DataError
from lowlight.metrics import METRICS
from lowlight.metrics.color_error import block_colour_error
from lowlight.metrics.fidelity import mae, psnr, ssim
from lowlight.metrics.histogram import jensen_shannon, luma_histogram
from lowlight.report.statistics import MEASURES


def pair(shape: tuple[int, ...], seed: int = 0, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(shape, generator=generator, dtype=torch.float64)
    noisy = clean + noise * torch.randn(shape, generator=generator, dtype=torch.float64)
    return noisy.clamp(0, 1), clean


def flat(value: float, shape: tuple[int, ...] = (3, 32, 40)) -> torch.Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def test_constants_have_the_values_worked_out_by_hand() -> None:
    # Without contrast only the luminance term is left: (2 * 0.5 * 0.6 + C1) / (0.5^2 + 0.6^2 + C1).
    assert ssim(flat(0.5), flat(0.6)) == pytest.approx((0.6 + 1e-4) / (0.61 + 1e-4), abs=1e-12)
    assert ssim(flat(0.5), flat(0.6)) == pytest.approx(0.98361, abs=5e-6)
    assert psnr(flat(0.5), flat(0.6)) == pytest.approx(20.0, abs=1e-9)
    assert mae(flat(0.5), flat(0.6)) == pytest.approx(0.1, abs=1e-12)


def test_a_picture_equals_itself() -> None:
    picture, _ = pair((3, 40, 30))
    assert psnr(picture, picture) == math.inf
    assert mae(picture, picture) == 0
    assert ssim(picture, picture) == pytest.approx(1, abs=1e-12)
    assert block_colour_error(picture, picture) == 0


# Heights around the bands in which a picture is worked through, and the smallest that has a value.
@pytest.mark.parametrize(
    "shape", [(3, 11, 11), (3, 12, 75), (3, 64, 20), (3, 74, 31), (3, 75, 31), (3, 139, 40), (1, 80, 33)]
)
def test_equal_to_scikit_image(shape: tuple[int, int, int]) -> None:
    picture, reference = pair(shape)
    ours = (ssim(picture, reference), psnr(picture, reference), mae(picture, reference))
    a, b = picture.numpy(), reference.numpy()
    theirs = structural_similarity(
        b,
        a,
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ours[0] == pytest.approx(theirs, abs=1e-12)
    assert ours[1] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-10)
    assert ours[2] == pytest.approx(float(np.abs(a - b).mean()), abs=1e-14)


@given(st.integers(11, 150), st.integers(11, 20), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_metrics_do_not_care_for_order_or_turning(height: int, width: int, seed: int) -> None:
    picture, reference = pair((1, height, width), seed)
    for metric in METRICS.values():
        value = metric(picture, reference)
        assert value == pytest.approx(metric(reference, picture), rel=1e-12)
        turned = metric(picture.transpose(1, 2), reference.transpose(1, 2))
        assert value == pytest.approx(turned, rel=1e-10)


@pytest.mark.parametrize("name", METRICS)
def test_reports_say_of_every_metric_which_way_is_better(name: str) -> None:
    metric = METRICS[name]
    a_little, a_lot = (metric(*pair((3, 40, 40), noise=noise)) for noise in (0.02, 0.2))
    assert a_little is not None and a_lot is not None
    assert (a_little > a_lot) == MEASURES[name].higher_is_better


def test_inputs_stay_as_they_are_and_float32_will_do() -> None:
    picture, reference = pair((3, 90, 40))
    before = picture.clone()
    values = [metric(picture, reference) for metric in METRICS.values()]
    assert torch.equal(picture, before)
    single = [metric(picture.float(), reference.float()) for metric in METRICS.values()]
    assert single == pytest.approx(values, rel=1e-6)


def test_pictures_smaller_than_the_window_have_no_ssim() -> None:
    for shape in ((3, 10, 40), (3, 40, 10)):
        picture, reference = pair(shape)
        assert ssim(picture, reference) is None
        assert psnr(picture, reference) > 0


@pytest.mark.parametrize("compute", [psnr, mae, ssim, block_colour_error])
def test_pictures_of_two_sizes_are_refused(compute: object) -> None:
    with pytest.raises(DataError, match="compared"):
        compute(flat(0.5), flat(0.5, (3, 32, 41)))  # type: ignore[operator]


def test_histogram_counts_rounded_luma() -> None:
    picture = torch.zeros(3, 2, 3)
    picture[:, 0, 0] = 1.0
    picture[1, 1, 1] = 1.0  # pure green: 255 * 0.7154 = 182.4
    picture[:, 1, 2] = torch.tensor(1.4)  # counted as white
    counts = luma_histogram(picture)
    assert {level: int(n) for level, n in enumerate(counts) if n} == {0: 3, 182: 1, 255: 2}
    gray = torch.tensor([[[0.0, 0.49 / 255, 0.51 / 255, -0.2]]])
    assert luma_histogram(gray)[:2].tolist() == [3, 1]


def test_divergence_of_histograms() -> None:
    one = luma_histogram(torch.rand(3, 50, 50, generator=torch.Generator().manual_seed(0)))
    two = luma_histogram(torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(1)))
    assert jensen_shannon(one, one) == 0
    assert jensen_shannon(one, 7 * one) == pytest.approx(0, abs=1e-15)
    assert jensen_shannon(luma_histogram(flat(0.1)), luma_histogram(flat(0.9))) == pytest.approx(1)
    assert jensen_shannon(one, two) == pytest.approx(jensen_shannon(two, one), abs=1e-15)
    assert 0 < jensen_shannon(one, two) < 1
    # Half of one histogram lies in the other: 1/2 log2(4/3) + 1/2 (1/2 log2(2/3) + 1/2) bits.
    half = torch.tensor([1, 1, 0]), torch.tensor([1, 0, 0])
    expected = 0.5 * (0.5 * math.log2(2 / 3) + 0.5) + 0.5 * math.log2(4 / 3)
    assert jensen_shannon(*half) == pytest.approx(expected, abs=1e-12)


def test_colour_error_is_ciede2000_of_block_means() -> None:
    one, two = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.6, 0.5, 0.4])
    expected = float(deltaE_ciede2000(rgb2lab(one.double().numpy()), rgb2lab(two.double().numpy())))
    picture, reference = (each[:, None, None].expand(3, 64, 96) for each in (one, two))
    assert block_colour_error(picture, reference) == pytest.approx(expected, rel=1e-6)
    # One of six blocks is wrong.
    mixed = reference.clone()
    mixed[:, 32:, 64:] = picture[:, 32:, 64:]
    assert block_colour_error(mixed, reference) == pytest.approx(expected / 6, rel=1e-6)


def test_colour_error_looks_past_noise_and_takes_any_size() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(3, 3, 4, generator=generator).repeat_interleave(40, 1).repeat_interleave(40, 2) * 0.6 + 0.2
    clean = clean[:, :117, :159]
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=generator)
    assert block_colour_error(noisy, clean) < 0.6 < 2 < block_colour_error(noisy, clean, block=1)
