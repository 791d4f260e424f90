"""Configuration and parts of the Laplacian pyramid of conditional VAEs on RAW: a small SID-net for each level."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import LatentShape, Likelihood, ModelTraits
from lowlight.models.blocks import DoubleConv
from lowlight.models.lapcvae_parts import MEAN_START, WIDTH_RANGE, PriorNetwork, limited
from lowlight.models.options import TILE_PX, RawModelOptions, require_sizes
from lowlight.models.sid_net import Down
from lowlight.models.sub_pixel import SubPixelHead, head_channels
from lowlight.ops.pyramid import PyramidFilter

BOTTLENECK_PX = 8


@dataclass(frozen=True, kw_only=True)
class LapCvaeRawConfig(RawModelOptions):
    """Size of the pyramid, and how often training sees what only the test-time path would give."""

    tile_px: int = TILE_PX  # packed pixels a side, 8 times a power of two
    levels: int = 4  # K
    latent: int = 128  # Z of each level
    base_channels: int = 32  # of the first block of a level; each further one has twice as many
    most_channels: int = 256
    prior_hidden: int = 256
    filter: PyramidFilter = "box"
    width: Literal["laplace", "gaussian"] = "laplace"  # likelihood: of scale 1, or normal with a learned scalar width
    unseen: Literal["chain", "re-encode"] = "chain"  # what stands for the coarser posterior at test time
    own_picture_share: float = 0.5  # of items given the low-frequency picture of the prior path, not the true one
    prior_share: float = 0.5  # of items given the coarser prior's numbers, not the posterior's
    grade_share: float = 0.5  # of items whose pictures, but not y, are graded, so that finer levels follow

    def __post_init__(self) -> None:
        super().__post_init__()
        coarsest = self.tile_px >> (self.levels - 1) if self.levels >= 1 else 0
        if coarsest < 2 * BOTTLENECK_PX or self.tile_px & (self.tile_px - 1):
            raise ConfigError(
                f"{self.levels} levels of tiles of {self.tile_px} pixels cannot be; expected a power of two whose "
                f"coarsest level has at least {2 * BOTTLENECK_PX} pixels a side"
            )
        if self.base != "none":
            raise ConfigError("lapcvae takes no base picture, its coarse levels are one; set base to none")
        require_sizes(self, "latent", "base_channels", "most_channels", "prior_hidden")
        for name in ("own_picture_share", "prior_share", "grade_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1")

    @property
    def enhances_with_posterior(self) -> bool:
        """Whether enhancing runs the posterior's encoders, so that weights must have them."""
        return self.unseen == "re-encode"

    def channels(self, level: int) -> list[int]:
        """Channels of the double blocks of a level, down to the 8x8 bottleneck."""
        depth = ((self.tile_px >> (level - 1)) // BOTTLENECK_PX).bit_length() - 1
        return [min(self.base_channels << step, self.most_channels) for step in range(depth)]

    def traits(self) -> ModelTraits:
        """Promise one latent a level; tiles start where the pixels of the coarsest level do."""
        likelihood: Likelihood = self.width
        return replace(
            super().traits(),
            levels=self.levels,
            tile=self.tile_px,
            likelihood=likelihood,
            latents=(LatentShape(self.latent),) * self.levels,
            latent_stride=1 << (self.levels - 1),
        )


class LevelDecoder(nn.Module):
    """D_k: latents of this level and all coarser ones, with the skips of F_k, to the band h_k."""

    def __init__(self, config: LapCvaeRawConfig, level: int) -> None:
        super().__init__()
        channels = config.channels(level)
        latent = config.latent * (config.levels - level + 1)
        self.deepest = channels[-1]
        self.expand = nn.Linear(latent, self.deepest * BOTTLENECK_PX**2)
        before, after = [self.deepest, *reversed(channels[1:])], list(reversed(channels))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in zip(before, after, strict=True))
        self.blocks = nn.ModuleList(DoubleConv(2 * o, o) for o in after)
        upscale = config.upscale if level == 1 else 1
        out = head_channels(config.out_channels, upscale)
        self.head = SubPixelHead(nn.Conv2d(channels[0], out, 1), config.out_channels, upscale, config.filters)
        self.spread = nn.Linear(latent, 1) if config.width == "gaussian" else None

    def start_small(self) -> None:
        """Shrink what the band is made of, after the weights were drawn: untrained levels then add little."""
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        with torch.no_grad():
            last.weight.mul_(MEAN_START)
            if self.spread is not None:
                self.spread.weight.zero_()

    def forward(self, z: Tensor, skips: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """`z [B, sum of Z]` and skips finest first to the mean and log-variance (None: fixed) of the band."""
        x = self.expand(z).view(-1, self.deepest, BOTTLENECK_PX, BOTTLENECK_PX)
        for up_conv, block, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            x = block(torch.cat((up_conv(x), skip), dim=1))
        out: Tensor = self.head(x)
        if self.spread is None:
            return out, None
        return out, limited(self.spread(z), WIDTH_RANGE).view(-1, 1, 1, 1)


class Level(nn.Module):
    """The test-time networks of one level: F_k, D_k, and the prior's two at all but the coarsest."""

    def __init__(self, config: LapCvaeRawConfig, level: int) -> None:
        super().__init__()
        coarsest = level == config.levels
        channels_in = config.in_channels + (0 if coarsest else config.out_channels)
        self.condition = Down(channels_in, config.channels(level), config.latent, heads=1)
        self.decoder = LevelDecoder(config, level)
        self.prior = None if coarsest else PriorNetwork(config.latent, config.prior_hidden, config.latent)
