"""Several dark frames of one scene: how many, how each is exposed, and how the camera was moved between them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError
from lowlight.core.photo import RGGB
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.noise import BLACK_DN, WHITE_DN, NoiseConfig, Sensor, expose_again, uniform
from lowlight.ops.exposure import RATIO_RANGE
from lowlight.ops.resampling import FILTER_PX, resample, resample_each
from lowlight.raw.bayer import normalise, pack_mosaic, plane_offsets


@dataclass(frozen=True)
class BurstLight:
    """What K frames of B scenes are made of.

    `ratio [B, K]` darkens each frame. `shift [B, K, 2]` is how far its content lies below and right of the first's,
    in packed pixels; of this `undone [B, K, 2]` is what alignment finds. All are zero for the first frame.
    """

    ratio: Tensor
    shift: Tensor
    undone: Tensor


def frame_count(frames: tuple[int, int], seed: int, step: int) -> int:
    """How many frames the items of a step have: one number for the batch, from the seed and the step alone."""
    low, high = frames
    return low if low == high else int(np.random.default_rng((seed, 2, step)).integers(low, high + 1))


def check_frames(frames: tuple[int, int], traits: ModelTraits | None = None) -> None:
    """Refuse numbers of frames that cannot be, or that a network of single frames cannot read (`ConfigError`)."""
    low, high = frames
    if not 1 <= low <= high:
        raise ConfigError(f"frames is {low} to {high}; expected at least 1, low first")
    if traits is not None and high > 1 and traits.max_frames == 1:
        raise ConfigError(f"frames is {low} to {high}, but this model reads one frame; use a model of sets, or 1 to 1")


def check_zero_frame_prob(prob: float, traits: ModelTraits | None = None) -> None:
    """Refuse what is no probability, and any for a network that cannot do without frames (`ConfigError`)."""
    if not 0 <= prob < 1:
        raise ConfigError(f"zero_frame_prob is {prob}; expected 0 to less than 1")
    if prob and traits is not None and (traits.max_frames == 1 or traits.base != "none"):
        raise ConfigError(
            f"zero_frame_prob is {prob}, but this model needs a frame; take a model of sets whose base is none, or 0"
        )


def sometimes_without_frames(batch: Batch, prob: float, seed: int, step: int) -> Batch:
    """The batch, or with this probability its targets alone: what a network of sets expects to see (z_1 ~ N(0, I)).

    Which it is depends on seed and step alone. Source: F. Duffhauss et al., FusionVAE, ECCV 2022, section 5.4.
    """
    if not prob or np.random.default_rng((seed, 4, step)).random() >= prob:
        return batch
    return replace(batch, frames=batch.frames[:, :0], ratio=batch.ratio[:, :0])


def draw_burst(
    ratio: Tensor, frames: int, spread_stops: float, shake_px: float, shake_left_px: float, generator: Generator
) -> BurstLight:
    """Draw K frames around a first one darkened by `ratio [B]`; nothing is drawn where there is nothing to choose.

    Others are exposed up to `spread_stops` more or less, and moved by up to `shake_px` packed pixels along each axis,
    of which alignment leaves up to `shake_left_px`.
    """
    count, others = len(ratio), frames - 1
    ratios = ratio[:, None].repeat(1, frames)
    undone = torch.zeros(count, frames, 2, device=ratio.device)
    left = torch.zeros_like(undone)
    if others and spread_stops:
        stops = uniform(count * others, -spread_stops, spread_stops, generator).view(count, others)
        ratios[:, 1:] = (ratios[:, 1:] * stops.exp2()).clamp(*RATIO_RANGE)
    for moves, most in ((undone, shake_px), (left, shake_left_px)):
        if others and most:
            moves[:, 1:] = uniform(count * others * 2, -most, most, generator).view(count, others, 2)
    return BurstLight(ratios, undone + left, undone)


def burst_margin(shake_px: float, shake_left_px: float) -> int:
    """Packed pixels that crops need on every side so that moved frames show nothing mirrored."""
    most = shake_px + shake_left_px
    return int(np.ceil(most)) + 2 * FILTER_PX if most else 0


def expose_burst(
    raw: Tensor,
    light: BurstLight,
    sensor: Sensor,
    config: NoiseConfig,
    generator: Generator,
    margin: int,
    *,
    clip: bool = True,
) -> Tensor:
    """Read frames of unbalanced camera light with one sensor each item; packed and aligned, `[B, K, 4, h, w]`.

    `raw [B, 3, H, W]` is linear light, 1 = saturation of an undarkened frame, and has `margin` packed pixels to
    spare on every side. Noise is independent from frame to frame; the sensor's fixed pattern is the same. With `clip`
    values below black become 0; without, noise keeps its sign.
    """
    frames, pattern = [], None
    for index in range(light.ratio.shape[1]):
        # The first frame is the one that stays; a packed pixel is two of the sensor's.
        moved = _each_resampled(raw, -2 * light.shift[:, index]).clamp(min=0) if index else raw
        mosaic = mosaic_of(moved) / light.ratio[:, index, None, None]
        reading, pattern = expose_again(mosaic, sensor, config, generator, pattern)
        packed = pack_reading(reading)
        frames.append(_inner(_each_resampled(packed, light.undone[:, index]) if index else packed, margin))
    read = torch.stack(frames, 1)
    return read.clamp_(min=0) if clip else read


def average_burst(frames: Tensor, ratio: Tensor) -> Tensor:
    """Mean of signed frames `[B, K, 4, h, w]` at the first one's brightness, `[B, 1, 4, h, w]`, clipped at black.

    What networks of one frame are given of a burst. `ratio [B, K]` darkened each. Frames count by the inverse of their
    noise, which lies between that of photons (brightness) and that of reading (its square).
    """
    gain = ratio / ratio[:, :1]
    weight = gain.pow(-1.5)
    share = (gain * weight / weight.sum(1, keepdim=True))[..., None, None, None]
    return (frames * share).sum(1, keepdim=True).clamp_(min=0)


def mosaic_of(rgb: Tensor) -> Tensor:
    """Sample `[B, 3, H, W]` at the sites of an RGGB sensor, `[B, H, W]`."""
    mosaic = rgb[:, 1].clone()
    mosaic[:, 0::2, 0::2] = rgb[:, 0, 0::2, 0::2]
    mosaic[:, 1::2, 1::2] = rgb[:, 2, 1::2, 1::2]
    return mosaic


def pack_reading(reading: Tensor) -> Tensor:
    """DN of an RGGB sensor `[B, 2h, 2w]` to planes `[B, 4, h, w]`, 0 = black and 1 = white; noise keeps its sign."""
    planes = pack_mosaic(reading, plane_offsets(RGGB))
    levels = torch.tensor([BLACK_DN, WHITE_DN], device=reading.device)
    return normalise(planes, levels[0].expand(4), levels[1].expand(4), clip=False)


def _each_resampled(pictures: Tensor, shifts: Tensor) -> Tensor:
    """Move every picture `[B, C, H, W]` by its own shift `[B, 2]`; what is not moved is left as it is."""
    if pictures.is_cuda:
        return resample_each(pictures, shifts)
    steps: list[list[float]] = shifts.tolist()
    if not any(any(step) for step in steps):
        return pictures
    moved = [resample(picture, (step[0], step[1])) for picture, step in zip(pictures, steps, strict=True)]
    return torch.stack(moved)


def _inner(planes: Tensor, margin: int) -> Tensor:
    return planes[..., margin : planes.shape[-2] - margin, margin : planes.shape[-1] - margin]
