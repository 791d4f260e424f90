"""A sensor's noise, for making dark RAW frames out of clean ones.

Model and shapes follow K. Wei et al., "A Physics-based Noise Formation Model for Extreme Low-light Raw
Denoising" (CVPR 2020): photon shot noise at system gain K, read noise with the heavy tails of a Tukey lambda
distribution and a size that grows with K, row noise, a black level that is not quite the stated one,
quantisation; and S. Hasinoff et al., "Burst photography" (2016) for shot and read noise as such. The ranges are
wider than one camera: they enclose the gains (0.6 to 1.3 DN per electron) and read noises (0.8 to 1.9 DN) seen
in 14-bit frames of a Sony A7S II, and a small 10-bit industrial sensor (1.6 and 8 on the same scale).

All levels are in DN of a 14-bit scale: black 512, white 16383.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError

BLACK_DN = 512.0
WHITE_DN = 16383.0
SPAN_DN = WHITE_DN - BLACK_DN


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Ranges a sensor is drawn from. Pairs are (low, high); `log` ranges are uniform in the logarithm."""

    gain: tuple[float, float] = (0.15, 4.0)  # K, DN per electron, log
    read_at_unit_gain: float = 1.35  # DN
    read_growth: float = 0.8  # exponent of K
    read_spread: float = 0.4  # deviation of the logarithm
    poor_sensor_share: float = 0.15  # of sensors whose read noise is 1 to 5 times larger
    tail: tuple[float, float] = (-0.12, 0.14)  # Tukey lambda shape: 0.14 nearly normal, lower: heavier tails
    row: tuple[float, float] = (0.02, 0.25)  # row noise as a fraction of read noise, log
    black_mean: float = -0.55  # mean of the black error all colours share, in read noises: dark frames run low
    black_common: float = 0.4  # deviation of that error
    black_colour: float = 0.25  # deviation of each colour's own black error, in read noises
    prnu: float = 0.006  # deviation of the pixels' sensitivity
    hot_share: float = 3e-5  # share of hot pixels, at most
    steps_dn: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 16.0)  # converters of 14, 12, 10 bits

    def __post_init__(self) -> None:
        for name in ("gain", "row"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} is {low} to {high}; expected a range above 0, low first")
        if not -0.5 < self.tail[0] <= self.tail[1]:
            raise ConfigError(f"tail is {self.tail[0]} to {self.tail[1]}; expected a range above -0.5, low first")
        if not self.steps_dn or min(self.steps_dn) <= 0:
            raise ConfigError(f"steps_dn is {list(self.steps_dn)}; expected one or more steps above 0")


@dataclass(frozen=True)
class Sensor:
    """One drawn sensor per batch item; every field is `[B]` but `black_error [B, 4]` (by colour index)."""

    gain: Tensor
    read: Tensor
    tail: Tensor
    row: Tensor
    black_error: Tensor
    hot_share: Tensor
    step: Tensor


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """`[count]` numbers uniform in [low, high], on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def log_uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """`[count]` numbers uniform in the logarithm."""
    return uniform(count, math.log(low), math.log(high), generator).exp()


def normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw standard normal numbers on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def draw_sensor(count: int, config: NoiseConfig, generator: Generator) -> Sensor:
    """Draw `count` sensors."""
    gain = log_uniform(count, *config.gain, generator)
    spread = config.read_spread * normal((count,), generator)
    good = config.read_at_unit_gain * gain.pow(config.read_growth) * spread.exp()
    poor = uniform(count, 0, 1, generator) < config.poor_sensor_share
    read = torch.where(poor, good * uniform(count, 1, 5, generator), good)
    common = config.black_mean + config.black_common * normal((count, 1), generator)
    colour = config.black_colour * normal((count, 4), generator)
    steps = torch.tensor(config.steps_dn, device=generator.device)
    pick = torch.randint(len(steps), (count,), generator=generator, device=generator.device)
    step = steps[pick]
    # A converter coarser than the noise would band; makers do not build that: noise keeps up with the step.
    read = torch.maximum(read, 0.45 * step)
    return Sensor(
        gain=gain,
        read=read,
        tail=uniform(count, *config.tail, generator),
        row=log_uniform(count, *config.row, generator),
        black_error=(common + colour) * good[:, None],
        hot_share=uniform(count, 0, config.hot_share, generator),
        step=step,
    )


def tukey_lambda(uniforms: Tensor, shape: Tensor) -> Tensor:
    """Unit-variance Tukey lambda noise from uniform numbers in (0, 1); `shape` above -1/2, broadcast."""
    shape = torch.where(shape.abs() < 1e-3, torch.full_like(shape, 1e-3), shape)
    raw = (uniforms.pow(shape) - (1 - uniforms).pow(shape)) / shape
    exact = shape.double()  # near 0 the variance is a small difference of numbers near 1
    gammas = (2 * torch.lgamma(exact + 1) - torch.lgamma(2 * exact + 2)).exp()
    variance = 2 / exact.square() * (1 / (1 + 2 * exact) - gammas)
    return raw * variance.rsqrt().to(raw)


@dataclass(frozen=True)
class FixedPattern:
    """What a sensor does alike in every frame: sensitivity, and DN that hot pixels add, both `[B, H, W]`."""

    sensitivity: Tensor
    hot_dn: Tensor


def expose(clean: Tensor, sensor: Sensor, config: NoiseConfig, generator: Generator) -> Tensor:
    """Read a red-origin RGGB mosaic with a sensor.

    `clean [B, H, W]` is linear light, 1 = saturation. Returns DN as floats `[B, H, W]`, quantised, in [0, 16383].
    """
    return expose_again(clean, sensor, config, generator, None)[0]


def expose_again(
    clean: Tensor, sensor: Sensor, config: NoiseConfig, generator: Generator, pattern: FixedPattern | None
) -> tuple[Tensor, FixedPattern]:
    """Read one frame of a burst, as `expose`, and give the sensor's fixed pattern with it for the next frame.

    Without a `pattern` one is drawn.
    """

    def item(value: Tensor) -> Tensor:
        return value[:, None, None]

    batch, height, width = clean.shape
    device = generator.device
    sensitivity = pattern.sensitivity if pattern else 1 + config.prnu * normal((batch, height, width), generator)
    electrons = (clean * sensitivity).clamp_(min=0) * (SPAN_DN / item(sensor.gain))
    signal = torch.poisson(electrons, generator=generator) * item(sensor.gain)
    uniforms = torch.rand(clean.shape, generator=generator, device=device).clamp_(1e-6, 1 - 1e-6)
    signal += tukey_lambda(uniforms, item(sensor.tail)) * item(sensor.read)
    signal += normal((batch, height, 1), generator) * item(sensor.row * sensor.read)
    signal += _mosaic_of(sensor.black_error, height, width)
    if pattern is None:
        chance = torch.rand(clean.shape, generator=generator, device=device) / item(sensor.hot_share).clamp(min=1e-12)
        # Where it falls below 1 it is again a uniform number.
        pattern = FixedPattern(sensitivity, torch.where(chance < 1, 60 * item(sensor.read) * chance, 0.0))
    signal += pattern.hot_dn
    step = item(sensor.step)
    return (((signal + BLACK_DN) / step).round_() * step).clamp_(0, WHITE_DN), pattern


def _mosaic_of(per_colour: Tensor, height: int, width: int) -> Tensor:
    """Spread `[B, 4]` values (colour index order) over an RGGB mosaic `[B, H, W]`."""
    block = per_colour[:, [0, 1, 3, 2]].view(-1, 2, 2)
    return block.repeat(1, height // 2, width // 2)
