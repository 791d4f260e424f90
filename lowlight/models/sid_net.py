"""SID-net, the U-Net shaped conditional VAE of the thesis, with its small and no-skip variants.

Source: O. Eriksson, Real-world Low-light Image Enhancement Using Variational Autoencoders, Lund 2020.
`y` is the dark frame, `x` the bright picture, `z` the latent. Three sub-networks: the prior p(z|y) (mean only, unit
variance) which also gives the skip features, the posterior encoder q(z|x), and the decoder p(x|y,z). At test time
z is the prior's mean.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lowlight.core.restoration import Condition, Gaussian, Latent, LatentShape, Noise, Restoration
from lowlight.models.blocks import (
    DoubleConv,
    HalvingPool,
    SubPixelHead,
    UpConv,
    WideLinear,
    head_channels,
    initialise,
    unit_gaussian,
)
from lowlight.models.options import TILE_PX, RawModelOptions
from lowlight.ops.gaussian import clamp_log_variance, draw

LEVELS = 5
BOTTLENECK_PX = TILE_PX >> LEVELS


@dataclass(frozen=True, kw_only=True)
class SidNetConfig(RawModelOptions):
    """Size of a SID-net."""

    base_channels: int = 32  # channels of the first level; each further level has twice as many
    latent: int = 512
    skips: bool = True  # False: the no-skip variant, p(x|z)

    def channels(self) -> list[int]:
        """Channels of the five levels, finest first."""
        return [self.base_channels << level for level in range(LEVELS)]


class Down(nn.Module):
    """The contracting half: five double blocks with max-pooling between, then fully connected heads."""

    def __init__(self, channels_in: int, channels: list[int], latent: int, heads: int) -> None:
        super().__init__()
        before = [channels_in, *channels[:-1]]
        self.blocks = nn.ModuleList(DoubleConv(i, o) for i, o in zip(before, channels, strict=True))
        self.pool = HalvingPool()
        features = channels[-1] * BOTTLENECK_PX**2
        self.heads = nn.ModuleList(nn.Linear(features, latent) for _ in range(heads))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Head outputs, and the features before each pooling, finest first."""
        skips = []
        for block in self.blocks:
            features = block(x)
            skips.append(features)
            x = self.pool(features)
        flat = x.flatten(1)
        return [head(flat) for head in self.heads], skips


class Up(nn.Module):
    """The expanding half: a fully connected layer, then transposed convolutions, skips and double blocks."""

    def __init__(self, config: SidNetConfig) -> None:
        super().__init__()
        channels = config.channels()
        self.deepest = channels[-1]
        self.expand = WideLinear(config.latent, self.deepest * BOTTLENECK_PX**2)
        before = [self.deepest, *reversed(channels[1:])]
        after = list(reversed(channels))
        self.ups = nn.ModuleList(UpConv(i, o) for i, o in zip(before, after, strict=True))
        joined = 2 if config.skips else 1
        self.blocks = nn.ModuleList(DoubleConv(joined * o, o) for o in after)
        out = head_channels(config.out_channels, config.upscale)
        self.head = SubPixelHead(nn.Conv2d(channels[0], out, 1), config.out_channels, config.upscale, config.filters)

    def forward(self, z: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """`z [B, Z]` and skips finest first (none for the no-skip variant) to `[B, C', u*256, u*256]`."""
        x = self.expand(z).view(-1, self.deepest, BOTTLENECK_PX, BOTTLENECK_PX)
        for level, (up, block) in enumerate(zip(self.ups, self.blocks, strict=True)):
            x = up(x)
            if skips:
                x = torch.cat((x, skips[-1 - level]), dim=1)
            x = block(x)
        out: Tensor = self.head(x)
        return out


class SidNet(nn.Module):
    """The three sub-networks of SID-net under the names of the thesis."""

    def __init__(self, config: SidNetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = replace(config.traits(), latents=(LatentShape(config.latent),))
        channels = config.channels()
        self.prior = Down(config.in_channels, channels, config.latent, heads=1)
        self.encoder = Down(config.out_channels * config.upscale**2, channels, config.latent, heads=2)
        self.decoder = Up(config)
        self.to_packed = nn.PixelUnshuffle(config.upscale)
        initialise(self, config.init, generator)
        if config.base != "none":
            # The output is a difference to the base picture, so training starts at the base picture.
            self.decoder.head.start_at_zero()

    def condition(self, frames: Tensor, base: Tensor | None = None) -> Condition:
        """p(z|y) and the skips of one dark frame, `[B, 1, C, 256, 256]`."""
        (mean,), skips = self.prior(frames[:, 0])
        return Condition(unit_gaussian(mean), tuple(skips) if self.config.skips else (), base)

    def posterior(self, target: Tensor) -> Gaussian:
        """q(z|x); a target of twice the packed size is folded to packed size first."""
        (mean, log_variance), _ = self.encoder(self.to_packed(target))
        return Gaussian(mean, clamp_log_variance(log_variance))

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        """Mean of p(x|y,z), `[B, C', u*256, u*256]`, not clipped."""
        image: Tensor = self.decoder(z, condition.skips)
        return image if condition.base is None else image + condition.base

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """Prior path: z is the prior's mean, plus one `noise [B, Z]` where it is given."""
        condition = self.condition(frames, base)
        z = condition.prior.mean if noise is None else draw(condition.prior, noise[0])
        return Restoration(self.decode(z, condition), (Latent(z, condition.prior),))
