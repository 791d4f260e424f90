"""A sensor's noise: each part has the statistics its formula states."""

import math

import pytest
import torch

from lowlight.core.errors import ConfigError
from lowlight.data.noise import (
    BLACK_DN,
    SPAN_DN,
    WHITE_DN,
    NoiseConfig,
    Sensor,
    draw_sensor,
    expose,
    expose_again,
    log_uniform,
    tukey_lambda,
)

CLEAN = NoiseConfig(prnu=0.0)
FINE = 1e-3  # a converter's step, in DN, that leaves the other noise alone


def sensor(count: int = 1, **parts: float) -> Sensor:
    """Sensors without any noise but the parts that are named."""
    values = {"gain": 1e-3, "read": 0.0, "tail": 0.14, "row": 0.0, "hot_share": 0.0, "step": FINE, **parts}
    fields = {name: torch.full((count,), float(value)) for name, value in values.items()}
    return Sensor(black_error=torch.zeros(count, 4), **fields)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reading(level: float, one: Sensor, config: NoiseConfig = CLEAN, side: int = 512, seed: int = 0) -> torch.Tensor:
    """DN above black of an even patch of light, in float64."""
    return (expose(torch.full((1, side, side), level), one, config, generator(seed)) - BLACK_DN).double()


@pytest.mark.parametrize("gain", [0.5, 2.0, 8.0])
def test_shot_noise_has_the_gain_times_the_signal_as_its_variance(gain: float) -> None:
    level = 0.02
    dn = reading(level, sensor(gain=gain))
    assert dn.mean() == pytest.approx(level * SPAN_DN, rel=0.01)
    assert dn.var() == pytest.approx(gain * level * SPAN_DN, rel=0.02)


@pytest.mark.parametrize("tail", [-0.12, 0.0, 0.0005, 0.14])
def test_read_noise_has_its_deviation_at_any_tail(tail: float) -> None:
    assert reading(0.0, sensor(read=20.0, tail=tail)).std() == pytest.approx(20, rel=0.02)


@pytest.mark.parametrize("shape", [-0.2, -0.12, -1e-4, 0.0, 1e-3, 2e-3, 0.14, 1.0])
def test_tukey_lambda_has_unit_variance(shape: float) -> None:
    uniforms = (torch.arange(1_000_000).double() + 0.5) / 1_000_000
    noise = tukey_lambda(uniforms, torch.tensor(shape, dtype=torch.float64))
    assert noise.mean() == pytest.approx(0, abs=1e-6)
    # The outermost quantiles are missing from the sum, which costs heavy tails a little.
    assert noise.square().mean() == pytest.approx(1, rel=0.01)


def test_tukey_lambda_in_single_precision_is_the_same() -> None:
    uniforms = torch.linspace(0.001, 0.999, 1001)
    for shape in (-0.12, 1.2e-3, 0.14):
        single = tukey_lambda(uniforms, torch.tensor(shape))
        double = tukey_lambda(uniforms.double(), torch.tensor(shape, dtype=torch.float64))
        assert (single - double).abs().max() < 2e-3


def test_lower_shapes_have_heavier_tails() -> None:
    uniforms = (torch.arange(100_000).double() + 0.5) / 100_000
    kurtosis = [
        float(tukey_lambda(uniforms, torch.tensor(shape, dtype=torch.float64)).pow(4).mean())
        for shape in (-0.12, 0.0, 0.14)
    ]
    assert kurtosis[0] > kurtosis[1] > kurtosis[2]
    assert kurtosis[1] == pytest.approx(4.2, rel=0.02)  # the logistic distribution
    assert kurtosis[2] == pytest.approx(3.0, rel=0.03)  # nearly normal


def test_row_noise_is_shared_by_a_row_and_by_nothing_else() -> None:
    # Row noise is a fraction of read noise, so the read noise averages out along the row.
    dn = reading(0.0, sensor(read=10.0, row=1.0), side=1024)[0]
    assert dn.mean(1).std() == pytest.approx(10, rel=0.1)
    assert dn.mean(0).std() < 1
    assert (dn - dn.mean(1, keepdim=True)).std() == pytest.approx(10, rel=0.02)


def test_black_errors_belong_to_their_colours() -> None:
    one = sensor(step=FINE)
    one.black_error[0] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # R, G1, B, G2
    dn = reading(0.0, one, side=4)[0]
    assert torch.allclose(dn[:2, :2], torch.tensor([[1.0, 2.0], [4.0, 3.0]]).double(), atol=FINE)
    assert torch.equal(dn[:2, :2], dn[2:, 2:])


def test_black_errors_have_the_spread_and_mean_of_the_configuration() -> None:
    config = NoiseConfig(poor_sensor_share=0.0, steps_dn=(FINE,))
    drawn = draw_sensor(20_000, config, generator())
    relative = drawn.black_error / drawn.read[:, None]
    expected = math.hypot(config.black_common, config.black_colour)
    assert relative.mean() == pytest.approx(config.black_mean, abs=0.02)
    assert relative.std() == pytest.approx(expected, rel=0.03)
    apart = relative - relative.mean()
    shared = (apart[:, 0] * apart[:, 1]).mean()
    assert shared == pytest.approx(config.black_common**2, rel=0.1)


def test_sensitivity_varies_from_pixel_to_pixel() -> None:
    dn = reading(0.5, sensor(gain=1e-3), NoiseConfig(prnu=0.01))
    assert dn.std() / dn.mean() == pytest.approx(0.01, rel=0.02)


def test_sensors_of_a_batch_have_nothing_in_common() -> None:
    config, clean = NoiseConfig(prnu=0.05), torch.full((2, 256, 256), 0.5)
    _, pattern = expose_again(clean, sensor(2), config, generator(), None)
    first, second = (pattern.sensitivity - 1).flatten(1)
    assert abs(float(torch.corrcoef(torch.stack((first, second)))[0, 1])) < 0.02


def test_hot_pixels_owe_nothing_to_the_noise_of_the_first_frame() -> None:
    clean, noisy = torch.zeros(1, 512, 512), sensor(read=4.0, hot_share=0.2)
    dn, pattern = expose_again(clean, noisy, CLEAN, generator(), None)
    hot = pattern.hot_dn > 0
    assert float(hot.double().mean()) == pytest.approx(0.2, rel=0.05)
    assert pattern.hot_dn.max() <= 60 * 4 and float(pattern.hot_dn[hot].mean()) == pytest.approx(30 * 4, rel=0.05)
    noise = dn - BLACK_DN - pattern.hot_dn
    assert abs(float(torch.corrcoef(torch.stack((noise[hot], pattern.hot_dn[hot])))[0, 1])) < 0.02


def test_hot_pixels_are_as_many_as_stated_and_only_brighter() -> None:
    dn = reading(0.0, sensor(read=1.0, hot_share=0.01, tail=0.14))
    bright = (dn > 8).double().mean()
    assert bright == pytest.approx(0.01 * (1 - 8 / 60), rel=0.15)
    assert dn.min() > -8


@pytest.mark.parametrize("step", [1.0, 4.0, 16.0])
def test_readings_are_whole_steps_within_the_converter(step: float) -> None:
    dn = reading(0.3, sensor(gain=4.0, read=30.0, step=step)) + BLACK_DN
    assert torch.equal(dn, (dn / step).round() * step)
    over = reading(1.5, sensor(step=step)) + BLACK_DN
    assert torch.equal(over, torch.full_like(over, WHITE_DN))
    under = reading(0.0, sensor(read=3000.0, step=step)) + BLACK_DN
    assert under.min() == 0


def test_a_coarse_converter_comes_with_enough_noise_not_to_band() -> None:
    drawn = draw_sensor(2000, NoiseConfig(), generator())
    assert (drawn.read >= 0.45 * drawn.step - 1e-6).all()


def test_read_noise_grows_with_the_gain_as_stated() -> None:
    config = NoiseConfig(read_spread=0.0, poor_sensor_share=0.0, steps_dn=(FINE,))
    drawn = draw_sensor(500, config, generator())
    assert torch.allclose(drawn.read, config.read_at_unit_gain * drawn.gain.pow(config.read_growth), rtol=1e-4)
    assert drawn.gain.min() >= config.gain[0] * 0.999
    assert drawn.gain.max() <= config.gain[1] * 1.001


def test_log_uniform_is_even_in_the_logarithm() -> None:
    values = log_uniform(50_000, 30.0, 300.0, generator())
    assert values.min() >= 29.99
    assert values.max() <= 300.1
    assert values.log().mean() == pytest.approx((math.log(30) + math.log(300)) / 2, abs=0.02)


def test_the_generator_decides_everything() -> None:
    one = draw_sensor(3, NoiseConfig(), generator(5))
    light = torch.rand(3, 16, 16, generator=generator(1)) * 0.02
    first, again, other = (expose(light, one, NoiseConfig(), generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("wrong", [{"gain": (0.0, 1.0)}, {"tail": (-0.6, 0.1)}, {"steps_dn": ()}, {"row": (2, 1)}])
def test_impossible_ranges_are_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        NoiseConfig(**wrong)
