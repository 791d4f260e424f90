"""The generator of Pix2Pix as a conditional VAE: eight strided convolutions down to a single pixel, and back.

Source: O. Eriksson, Real-world Low-light Image Enhancement Using Variational Autoencoders, Lund 2020, after
P. Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017. No batch norm.
`y` is the dark frame, `x` the bright picture; the latent `z` is the bottleneck of one pixel, its channels as
a vector. At test time z is the prior's mean.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lowlight.core.restoration import Condition, Gaussian, Latent, LatentShape, Noise, Restoration
from lowlight.models.blocks import initialise, leaky, unit_gaussian
from lowlight.models.options import RawModelOptions, require_sizes
from lowlight.models.sub_pixel import SubPixelHead, head_channels
from lowlight.ops.gaussian import clamp_log_variance, draw

DROPOUT_BLOCKS = 3  # the deepest blocks of the decoder; active in training only


@dataclass(frozen=True, kw_only=True)
class Pix2PixConfig(RawModelOptions):
    """Size of a Pix2Pix."""

    base_channels: int = 64  # channels of the first level; the deeper ones have up to eight times as many

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self, "base_channels")

    def channels(self) -> list[int]:
        """List the channels of the seven levels, finest first; the bottleneck has as many as the last."""
        return [self.base_channels * factor for factor in (1, 2, 4, 8, 8, 8, 8)]


def halve(channels_in: int, channels_out: int) -> nn.Conv2d:
    """C4,2: a 4x4 convolution with stride 2 and padding 1, which halves the size."""
    return nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)


def double(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
    """CT4,2: a 4x4 transposed convolution with stride 2 and padding 1, which doubles the size."""
    return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1)


def grow(channels_in: int, channels_out: int, *, dropout: bool) -> nn.Sequential:
    """D or Dd: CT4,2, with a dropout of 0.5 where asked for, and ReLU."""
    block: list[nn.Module] = [double(channels_in, channels_out)]
    if dropout:
        block.append(nn.Dropout(0.5))
    return nn.Sequential(*block, nn.ReLU(inplace=True))


class Down(nn.Module):
    """The contracting half: seven blocks E = C4,2 + LeakyReLU(0.2), then heads without activation."""

    def __init__(self, channels_in: int, channels: list[int], heads: int) -> None:
        super().__init__()
        before = [channels_in, *channels[:-1]]
        self.blocks = nn.ModuleList(nn.Sequential(halve(i, o), leaky()) for i, o in zip(before, channels, strict=True))
        self.heads = nn.ModuleList(halve(channels[-1], channels[-1]) for _ in range(heads))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Head outputs flattened to `[B, Z]`, and the blocks' outputs, finest first."""
        skips = []
        for block in self.blocks:
            x = block(x)
            skips.append(x)
        return [head(x).flatten(1) for head in self.heads], skips


class Up(nn.Module):
    """The expanding half: seven blocks, each joined with a skip, then CT4,2 and Tanh."""

    def __init__(self, config: Pix2PixConfig) -> None:
        super().__init__()
        channels = config.channels()
        after = list(reversed(channels))
        # The first block sees the bottleneck alone, the others a block's output joined with a skip.
        before = [after[0], *(2 * o for o in after[:-1])]
        self.blocks = nn.ModuleList(
            grow(i, o, dropout=level < DROPOUT_BLOCKS) for level, (i, o) in enumerate(zip(before, after, strict=True))
        )
        out = head_channels(config.out_channels, config.upscale)
        self.head = SubPixelHead(double(2 * channels[0], out), config.out_channels, config.upscale, config.filters)

    def forward(self, z: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """`z [B, Z]` and skips finest first to `[B, C', u*256, u*256]` in [-1, 1]."""
        x = z[:, :, None, None]
        for level, block in enumerate(self.blocks):
            x = torch.cat((block(x), skips[-1 - level]), dim=1)
        out: Tensor = torch.tanh(self.head(x))
        return out


class Pix2Pix(nn.Module):
    """The three sub-networks of Pix2Pix under the names of the thesis."""

    def __init__(self, config: Pix2PixConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = replace(config.traits(), latents=(LatentShape(config.channels()[-1]),))
        channels = config.channels()
        self.prior = Down(config.in_channels, channels, heads=1)
        self.encoder = Down(config.out_channels * config.upscale**2, channels, heads=2)
        self.decoder = Up(config)
        self.to_packed = nn.PixelUnshuffle(config.upscale)
        initialise(self, config.init, generator)
        if config.base != "none":
            # The output is a difference to the base picture, so training starts at the base picture.
            self.decoder.head.start_at_zero()

    def condition(self, frames: Tensor, base: Tensor | None = None) -> Condition:
        """p(z|y) and the skips of one dark frame, `[B, 1, C, 256, 256]`."""
        (mean,), skips = self.prior(frames[:, 0])
        return Condition(unit_gaussian(mean), tuple(skips), base)

    def posterior(self, target: Tensor) -> Gaussian:
        """q(z|x); a target of twice the packed size is folded to packed size first."""
        (mean, log_variance), _ = self.encoder(self.to_packed(target))
        return Gaussian(mean, clamp_log_variance(log_variance))

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        """Mean of p(x|y,z), `[B, C', u*256, u*256]`, not clipped: the Tanh may be below 0."""
        image: Tensor = self.decoder(z, condition.skips)
        return image if condition.base is None else image + condition.base

    def restore(self, frames: Tensor, base: Tensor | None = None, noise: Noise | None = None) -> Restoration:
        """Prior path: z is the prior's mean, plus one `noise [B, Z]` where it is given."""
        condition = self.condition(frames, base)
        z = condition.prior.mean if noise is None else draw(condition.prior, noise[0])
        return Restoration(self.decode(z, condition), (Latent(z, condition.prior),))
