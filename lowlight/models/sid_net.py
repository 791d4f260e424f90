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
    LEAK,
    DoubleConv,
    HalvingPool,
    UpConv,
    initialise,
    unit_gaussian,
)
from lowlight.models.folded_join import FoldedJoin
from lowlight.models.onednn import PackedLinear
from lowlight.models.options import TILE_PX, RawModelOptions, require_sizes
from lowlight.models.sub_pixel import SubPixelHead, head_channels
from lowlight.ops.gaussian import clamp_log_variance, draw

LEVELS = 5
BOTTLENECK_PX = TILE_PX >> LEVELS
# What a CPU does tile by tile, and how many tiles at once of the rest: the fine levels take the memory, which one tile
# at a time keeps small and near the processor, the deep ones have the weights, which are read once for all tiles.
FINE_LEVELS = 2
CPU_BATCH = 6


@dataclass(frozen=True, kw_only=True)
class SidNetConfig(RawModelOptions):
    """Size of a SID-net."""

    base_channels: int = 32  # channels of the first level; each further level has twice as many
    latent: int = 512
    skips: bool = True  # False: the no-skip variant, p(x|z)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self, "base_channels", "latent")

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
        self.heads = nn.ModuleList(PackedLinear(features, latent) for _ in range(heads))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Head outputs, and the features before each pooling, finest first."""
        x, skips = self.contract(x, range(len(self.blocks)))
        return self.read(x), skips

    def contract(self, x: Tensor, levels: range) -> tuple[Tensor, list[Tensor]]:
        """Some levels, finest first: what the next one reads, and the features before each pooling."""
        skips = []
        for level in levels:
            skips.append(self.blocks[level](x))
            x = self.pool(skips[-1])
        return x, skips

    def read(self, x: Tensor) -> list[Tensor]:
        """The heads, from what the deepest level gives."""
        flat = x.flatten(1)
        return [head(flat) for head in self.heads]


class Up(nn.Module):
    """The expanding half: a fully connected layer, then transposed convolutions, skips and double blocks."""

    def __init__(self, config: SidNetConfig) -> None:
        super().__init__()
        channels = config.channels()
        self.deepest = channels[-1]
        self.expand = PackedLinear(config.latent, self.deepest * BOTTLENECK_PX**2)
        before = [self.deepest, *reversed(channels[1:])]
        after = list(reversed(channels))
        sides = [BOTTLENECK_PX << level for level in range(LEVELS)]
        joined = 2 if config.skips else 1
        ups = [UpConv(*each) for each in zip(before, after, sides, strict=True)]
        blocks = [DoubleConv(joined * o, o) for o in after]
        joins = [FoldedJoin(up, block.entrance) for up, block in zip(ups, blocks, strict=True)] if config.skips else []
        self.ups, self.blocks, self.joins = nn.ModuleList(ups), nn.ModuleList(blocks), nn.ModuleList(joins)
        out = head_channels(config.out_channels, config.upscale)
        self.head = SubPixelHead(nn.Conv2d(channels[0], out, 1), config.out_channels, config.upscale, config.filters)

    def forward(self, z: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """`z [B, Z]` and skips finest first (none for the no-skip variant) to `[B, C', u*256, u*256]`."""
        out: Tensor = self.head(self.widen(self.start(z), list(skips), range(len(self.blocks))))
        return out

    def start(self, z: Tensor) -> Tensor:
        """What the deepest level reads, from the latent."""
        x: Tensor = self.expand(z)
        return x.view(-1, self.deepest, BOTTLENECK_PX, BOTTLENECK_PX)

    def widen(self, x: Tensor, skips: list[Tensor], levels: range) -> Tensor:
        """Some levels, deepest first; the skips that they use, finest first, are taken from the end of the list."""
        for level in levels:
            up, block = self.ups[level], self.blocks[level]
            assert isinstance(up, UpConv) and isinstance(block, DoubleConv)
            if skips:
                skip = skips.pop()
                folded = self.joins[level](x, skip, LEAK)
                x = block.first(up.beside(x, skip)) if folded is None else folded
            else:
                x = block.first(up(x))
            x = block.second(x)
        return x


class SidNet(nn.Module):
    """The three sub-networks of SID-net under the names of the thesis."""

    def __init__(self, config: SidNetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = replace(config.traits(), latents=(LatentShape(config.latent),), cpu_batch=CPU_BATCH)
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
        if frames.device.type == "cpu" and torch.is_inference_mode_enabled() and not torch.compiler.is_compiling():
            return self._restore_by_tiles(frames, base, noise)
        condition = self.condition(frames, base)
        z = _chosen(condition.prior, noise)
        return Restoration(self.decode(z, condition), (Latent(z, condition.prior),))

    def _restore_by_tiles(self, frames: Tensor, base: Tensor | None, noise: Noise | None) -> Restoration:
        """The same, in 32 bits at the end, with the fine levels of one tile after another, see `FINE_LEVELS`."""
        fine, deep = range(FINE_LEVELS), range(FINE_LEVELS, LEVELS)
        begun = [self.prior.contract(tile, fine) for tile in torch.split(frames[:, 0], 1)]
        x, skips = self.prior.contract(torch.cat([x for x, _ in begun]), deep)
        prior = unit_gaussian(self.prior.read(x)[0])
        z = _chosen(prior, noise)
        x = self.decoder.widen(self.decoder.start(z), skips if self.config.skips else [], range(len(deep)))
        side = TILE_PX * self.config.upscale
        image = torch.empty(len(x), self.config.out_channels, side, side)
        for number, (_, skips) in enumerate(begun):
            part = slice(number, number + 1)
            tile = self.decoder.widen(x[part], skips if self.config.skips else [], range(len(deep), LEVELS))
            self.decoder.head.into(image[part], tile)
        return Restoration(image if base is None else image + base, (Latent(z, prior),))


def _chosen(prior: Gaussian, noise: Noise | None) -> Tensor:
    """The prior's mean, or a draw with the noise that is given."""
    return prior.mean if noise is None else draw(prior, noise[0])
