"""Building blocks and initialisation shared by the networks of the thesis."""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight.core.restoration import Gaussian
from lowlight.models.fused_bias import add_bias, can_fuse
from lowlight.models.onednn import DoublingConv, LeakyConv

LEAK = 0.2
Init = Literal["normal02", "kaiming"]


def leaky() -> nn.LeakyReLU:
    """The thesis' activation: LeakyReLU with slope 0.2."""
    return nn.LeakyReLU(LEAK, inplace=True)


@runtime_checkable
class StartsAsIdentity(Protocol):
    """A layer that changes nothing before it is trained."""

    def start_as_identity(self) -> None:
        """Set its weights so."""
        ...


class DoubleConv(nn.Sequential):
    """B(i, o): two 3x3 convolutions with bias and zero padding, each followed by LeakyReLU(0.2).

    In inference mode each pair takes fewer passes over the features: on a CPU one kernel, on CUDA two.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(LeakyConv(channels_in, channels_out), leaky(), LeakyConv(channels_out, channels_out), leaky())

    @property
    def entrance(self) -> LeakyConv:
        """The first convolution."""
        conv = self[0]
        assert isinstance(conv, LeakyConv)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, C', h, w]`."""
        return self.second(self.first(x))

    def first(self, x: Tensor) -> Tensor:
        """The first pair, `[B, C, h, w]` to `[B, C', h, w]`."""
        return self._pair(x, 0)

    def second(self, x: Tensor) -> Tensor:
        """The second pair, which keeps the shape."""
        return self._pair(x, 2)

    def _pair(self, x: Tensor, at: int) -> Tensor:
        conv = self[at]
        assert isinstance(conv, LeakyConv)
        if can_fuse(x):
            assert conv.bias is not None
            return add_bias(F.conv2d(x, conv.weight, padding=1), conv.bias, LEAK)
        fused = conv.with_leak(x, LEAK)
        pair: Tensor = self[at + 1](conv(x)) if fused is None else fused
        return pair


class HalvingPool(nn.MaxPool2d):
    """The largest value of each 2x2 block.

    In inference mode on a CPU as two maxima of halves, which takes half of the time: PyTorch's pooling there also
    notes where the largest value was.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, C, h/2, w/2]`; both sides even."""
        if x.device.type != "cpu" or not torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
            pooled: Tensor = super().forward(x)
            return pooled
        rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])


class UpConv(DoublingConv):
    """A transposed 2x2 convolution of stride 2 with bias, which doubles the size."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[B, C, h, w]` to `[B, C', 2h, 2w]`."""
        if self.bias is not None and can_fuse(x):
            return add_bias(F.conv_transpose2d(x, self.weight, stride=2), self.bias)
        return super().forward(x, output_size)

    def beside(self, x: Tensor, skip: Tensor) -> Tensor:
        """What `forward` gives, and behind it the channels of `skip [B, S, 2h, 2w]`."""
        joined = self.joined(x, skip)
        return torch.cat((self(x), skip), dim=1) if joined is None else joined


def unit_gaussian(mean: Tensor) -> Gaussian:
    """N(mean, I): the prior of the thesis has a fixed variance."""
    return Gaussian(mean, torch.zeros_like(mean))


def initialise(network: nn.Module, init: Init, generator: torch.Generator) -> None:
    """Draw all weights anew and set biases to 0.

    `normal02`: N(0, 0.02^2) for convolutions, transposed convolutions and linear layers alike (thesis). `kaiming`:
    He et al. 2015, fan-in, for LeakyReLU(0.2); small networks need it, their signal dies under the other. A network
    that has no memory yet is left alone: asking it for normal numbers would load PyTorch's compiler, 70 MB of it.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
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
    start_identities(network)


def start_identities(network: nn.Module) -> None:
    """Let the layers of a network that are to begin as the identity do so."""
    for module in network.modules():
        if isinstance(module, StartsAsIdentity):
            module.start_as_identity()
