"""Building blocks and initialisation shared by the networks of the thesis."""

from typing import Literal

import torch
from torch import Tensor, nn

from lowlight.core.restoration import Gaussian

LEAK = 0.2
Init = Literal["normal02", "kaiming"]


def leaky() -> nn.LeakyReLU:
    """The thesis' activation: LeakyReLU with slope 0.2."""
    return nn.LeakyReLU(LEAK, inplace=True)


class DoubleConv(nn.Sequential):
    """B(i, o): two 3x3 convolutions with bias and zero padding, each followed by LeakyReLU(0.2)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            leaky(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            leaky(),
        )


class Refine(nn.Conv2d):
    """A 3x3 convolution that starts as a binomial blur of each channel.

    A pixel shuffle alone starts with pictures of 2x2 blocks and unlearns them slowly; blurred, it starts with smooth
    ones, and the filter is free to sharpen. The border is repeated, so that no tile fades at its edge.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, padding_mode="replicate")
        taps = torch.tensor([0.25, 0.5, 0.25])
        with torch.no_grad():
            self.weight.zero_()
            for channel in range(channels):
                self.weight[channel, channel] = torch.outer(taps, taps)
            assert self.bias is not None
            self.bias.zero_()


class SubPixelHead(nn.Sequential):
    """Brings features to `channels_out` at `upscale` times their size: a convolution, a pixel shuffle, a filter.

    With upscale 1 it is the plain output convolution of the thesis.
    """

    def __init__(self, conv: nn.Module, channels_out: int, upscale: int) -> None:
        finish = (nn.PixelShuffle(upscale), Refine(channels_out)) if upscale > 1 else ()
        super().__init__(conv, *finish)


def unit_gaussian(mean: Tensor) -> Gaussian:
    """N(mean, I): the prior of the thesis has a fixed variance."""
    return Gaussian(mean, torch.zeros_like(mean))


def initialise(network: nn.Module, init: Init, generator: torch.Generator) -> None:
    """Draw all weights anew and set biases to 0.

    `normal02`: N(0, 0.02^2) for convolutions, transposed convolutions and linear layers alike (thesis). `kaiming`:
    He et al. 2015, fan-in, for LeakyReLU(0.2); small networks need it, their signal dies under the other.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) or isinstance(module, Refine):
            continue
        if init == "normal02":
            nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
        elif isinstance(module, nn.ConvTranspose2d):
            # Each output sees (kernel / stride)^2 taps of every input channel.
            taps = module.kernel_size[0] * module.kernel_size[1] / (module.stride[0] * module.stride[1])
            gain = nn.init.calculate_gain("leaky_relu", LEAK)
            std = gain / (module.in_channels * taps) ** 0.5
            nn.init.normal_(module.weight, 0.0, std, generator=generator)
        else:
            nn.init.kaiming_normal_(module.weight, LEAK, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
