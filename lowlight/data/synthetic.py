"""Pairs of dark RAW and bright truth made from clean photographs.

A photograph is unprocessed to linear camera colour (after T. Brooks et al., "Unprocessing Images for Learned
Raw Denoising", CVPR 2019), exposed, mosaicked, darkened by the ratio, given a sensor's noise, and then read
through the same packing and amplification as a real file. Every batch is a pure function of the seed and the step.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.batches import as_batch
from lowlight.data.bursts import (
    average_burst,
    burst_margin,
    check_frames,
    check_zero_frame_prob,
    draw_burst,
    expose_burst,
    frame_count,
    sometimes_without_frames,
)
from lowlight.data.cameras import draw_gains, draw_matrices
from lowlight.data.noise import NoiseConfig, draw_sensor, log_uniform, normal, uniform
from lowlight.data.photos import HELD_OUT_SHARE, PhotoSet
from lowlight.data.scenes import procedural_scene
from lowlight.ops.color import apply_matrix, encode, srgb_decode

LARGEST_SHAKE = 64  # packed pixels
MAX_ANALOGUE_LIGHT = 16.0  # light sources are at most this many times brighter than the photo's white


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """How scenes are drawn. Pairs are (low, high)."""

    ratio: tuple[float, float] = (30.0, 300.0)  # darkening, uniform in the logarithm
    mild_ratio: tuple[float, float] = (1.0, 30.0)  # of pictures that are hardly dark, whose detail must stay
    mild_share: float = 0.2
    mean_light: tuple[float, float] = (0.015, 0.3)  # mean linear value of the truth, uniform in the logarithm
    zoom: tuple[float, float] = (0.75, 2.0)  # enlargement of the photo, uniform in the logarithm
    tone: float = 1.0  # how much of a photo's contrast curve is undone, at most
    lamp_share: float = 0.4  # share of pictures whose whites are turned into light sources
    tint: float = 0.08  # deviation of the logarithm of each colour: balance is never perfect
    warmth: float = 0.12  # how much warmer than white lamp-lit scenes are, at most
    scene_share: float = 0.12  # share of procedural scenes
    scene_count: int = 64  # different procedural scenes
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    # Of a scene, uniform, one number for a whole batch; the first fits the truth. Networks of one frame get the mean.
    frames: tuple[int, int] = (1, 1)
    burst_ratio_spread: float = 0.0  # stops by which the others are exposed more or less, at most
    shake_px: float = 0.0  # packed pixels the camera moves between frames, at most; alignment undoes it
    shake_left_px: float = 0.0  # packed pixels that alignment leaves, at most
    zero_frame_prob: float = 0.0  # of batches without any frame, for networks of sets

    def __post_init__(self) -> None:
        check_frames(self.frames)
        check_zero_frame_prob(self.zero_frame_prob)
        for name in ("burst_ratio_spread", "shake_px", "shake_left_px"):
            if not 0 <= getattr(self, name) <= LARGEST_SHAKE:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to {LARGEST_SHAKE}")
        for name in ("mild_share", "lamp_share", "scene_share", "tone"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1")
        if min(self.tint, self.warmth) < 0:
            raise ConfigError(f"tint and warmth are {self.tint} and {self.warmth}; expected at least 0")
        for name in ("ratio", "mild_ratio", "mean_light", "zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} is {low} to {high}; expected a range above 0, low first")
        if self.scene_share and self.scene_count < 1:
            raise ConfigError(f"scene_count is {self.scene_count}; expected at least 1, or a scene_share of 0")


class SyntheticSource:
    """Makes the batch of any step; `traits` say what the network takes and gives.

    Raises `DataError` without photos, `ConfigError` for a network that does not turn packed RAW into colour.
    """

    def __init__(
        self,
        photos: PhotoSet,
        traits: ModelTraits,
        config: SyntheticConfig,
        batch: int,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        if not len(photos):
            raise DataError(
                f"{photos.source} has no photos to train on (one in {HELD_OUT_SHARE} is kept aside); add some"
            )
        if (traits.in_channels, traits.out_channels) != (4, 3):
            raise ConfigError(
                f"synthetic pairs are packed RAW and colour (4 channels in, 3 out); this model has "
                f"{traits.in_channels} and {traits.out_channels}"
            )
        check_zero_frame_prob(config.zero_frame_prob, traits)
        self.photos, self.traits, self.config = photos, traits, config
        self.batch_size, self.seed = batch, seed
        self.device = device or torch.device("cpu")
        self._scenes: dict[int, npt.NDArray[np.uint8]] = {}

    def batch(self, step: int) -> Batch:
        """Make the training items of one step, on the source's device."""
        host = Generator().manual_seed(_mix(self.seed, step))
        generator = Generator(self.device).manual_seed(_mix(self.seed + 1, step))
        crops = torch.stack([self._crop(host) for _ in range(self.batch_size)])
        frames = frame_count(self.config.frames, self.seed, step)
        made = make_pairs(crops, self.traits, self.config, generator, frames)
        return sometimes_without_frames(made, self.config.zero_frame_prob, self.seed, step)

    def describe(self) -> dict[str, Any]:
        """Give the name of the source, and the number and hash of the photos that train."""
        return {"name": "synthetic", "photos": len(self.photos), "photo_hash": self.photos.digest()}

    def _crop(self, generator: Generator) -> Tensor:
        """Cut one flipped, zoomed crop of a photo or scene, float `[3, 2*tile, 2*tile]` in the sRGB curve.

        Where frames are moved it is larger by their margin.
        """
        photo = self._draw_picture(generator)
        side = 2 * (self.traits.tile + 2 * _margin(self.config))
        zoom = float(log_uniform(1, *self.config.zoom, generator))
        cut = min(max(int(side / zoom), 1), *photo.shape[:2])
        top, left = (_below(limit - cut + 1, generator) for limit in photo.shape[:2])
        crop = torch.from_numpy(photo[top : top + cut, left : left + cut].copy()).to(self.device).movedim(-1, 0)
        crop = _flip(crop, _below(8, generator)).float()[None] / 255
        if cut != side:
            crop = F.interpolate(crop, (side, side), mode="bilinear", antialias=cut > side).clamp_(0, 1)
        return crop[0]

    def _draw_picture(self, generator: Generator) -> npt.NDArray[np.uint8]:
        if self.config.scene_share and float(torch.rand(1, generator=generator)) < self.config.scene_share:
            seed = _below(self.config.scene_count, generator)
            if seed not in self._scenes:
                self._scenes[seed] = procedural_scene(seed)
            return self._scenes[seed]
        return self.photos.readable(_below(len(self.photos), generator))


def make_pairs(
    crops: Tensor, traits: ModelTraits, config: SyntheticConfig, generator: Generator, frames: int = 1
) -> Batch:
    """Turn clean crops `[B, 3, 2t, 2t]` (sRGB curve) into a batch of so many frames each, for these traits.

    Where the configuration moves frames, crops have `burst_margin` packed pixels to spare on every side.
    """
    count, margin = len(crops), _margin(config)
    ratio = _draw_ratio(count, config, generator)
    gains = draw_gains(count, generator)
    matrix = draw_matrices(count, generator)
    scene = light_of(crops, config, generator)
    camera = apply_matrix(scene, matrix).clamp_(min=0)
    spare = slice(2 * margin, crops.shape[-1] - 2 * margin)
    target = render_truth(camera[..., spare, spare], matrix, traits)

    raw = camera / gains[:, [0, 1, 2], None, None]
    sensor = draw_sensor(count, config.noise, generator)
    burst = draw_burst(ratio, frames, config.burst_ratio_spread, config.shake_px, config.shake_left_px, generator)
    alone = traits.max_frames == 1 and frames > 1
    packed = expose_burst(raw, burst, sensor, config.noise, generator, margin, clip=not alone)
    ratio = burst.ratio
    if alone:  # a network of one frame gets their mean, as when it enhances
        packed, ratio = average_burst(packed, ratio), ratio[:, :1]
    return as_batch(packed, ratio, gains, torch.linalg.inv(matrix), target, traits)


def _margin(config: SyntheticConfig) -> int:
    return burst_margin(config.shake_px, config.shake_left_px) if config.frames[1] > 1 else 0


def _draw_ratio(count: int, config: SyntheticConfig, generator: Generator) -> Tensor:
    dark = log_uniform(count, *config.ratio, generator)
    mild = log_uniform(count, *config.mild_ratio, generator)
    return torch.where(uniform(count, 0, 1, generator) < config.mild_share, mild, dark)


def light_of(crops: Tensor, config: SyntheticConfig, generator: Generator) -> Tensor:
    """Give the linear sRGB light of crops in the sRGB curve, `[B, 3, H, W]`, not clipped: lamps exceed 1."""
    count = len(crops)

    def item(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    strength = item(uniform(count, 0, config.tone, generator))
    flat = 0.5 - torch.sin(torch.asin(1 - 2 * crops) / 3)  # the inverse of the smoothstep contrast curve
    linear = srgb_decode(torch.lerp(crops, flat, strength))

    is_lamp = uniform(count, 0, 1, generator) < config.lamp_share
    boost = torch.where(is_lamp, log_uniform(count, 1, MAX_ANALOGUE_LIGHT, generator), 1.0)
    near_white = ((crops.amin(1, keepdim=True) - 0.85) / 0.15).clamp(0, 1)
    linear = linear * (1 + (item(boost) - 1) * near_white.square())

    tint = config.tint * normal((count, 3), generator)
    warmth = uniform(count, 0, config.warmth, generator)
    tint = tint + warmth[:, None] * torch.tensor([1.0, 0.0, -1.6], device=tint.device)
    linear = linear * tint.exp()[:, :, None, None]
    wanted = log_uniform(count, *config.mean_light, generator)
    present = linear.clamp(max=1).mean((1, 2, 3)).clamp(min=1e-3)
    return linear * item((wanted / present).clamp(max=4.0))


def render_truth(camera: Tensor, matrix: Tensor, traits: ModelTraits) -> Tensor:
    """Render linear balanced camera light `[B, 3, 2t, 2t]` as the network should give it."""
    clipped = camera.clamp(0, 1)
    if traits.output_colour == "srgb":
        clipped = apply_matrix(clipped, torch.linalg.inv(matrix)).clamp_(0, 1)
    if traits.upscale == 1:
        # LibRaw's half size makes one pixel of each 2x2 block in linear light.
        clipped = F.avg_pool2d(clipped, 2)
    return encode(clipped)


def _flip(picture: Tensor, which: int) -> Tensor:
    """One of the eight flips and turns of `[..., H, W]`; before mosaicking, so the phase is never touched."""
    if which & 1:
        picture = picture.flip(-1)
    if which & 2:
        picture = picture.flip(-2)
    return picture.transpose(-1, -2) if which & 4 else picture


def _below(limit: int, generator: Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))


def _mix(seed: int, step: int) -> int:
    """Give a seed for one step: neighbouring steps must not give related streams."""
    return (seed * 0x9E3779B1 + step * 0x85EBCA77 + math.isqrt(step) * 7919) & 0x7FFFFFFF
