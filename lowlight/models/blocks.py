"""Building blocks and initialisation shared by the networks of the thesis."""

import platform
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight.core.restoration import Gaussian
from lowlight.models.fused_bias import add_bias, can_fuse

LEAK = 0.2
FULL_SIZE_CHANNELS = 8  # at full sensor size every channel costs four times as much
Init = Literal["normal02", "kaiming"]


def leaky() -> nn.LeakyReLU:
    """The thesis' activation: LeakyReLU with slope 0.2."""
    return nn.LeakyReLU(LEAK, inplace=True)


def _fused_convolution() -> Callable[..., Tensor] | None:
    """Find the convolution with an activation in one kernel, of oneDNN; None where this PyTorch has none."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    # PyTorch's own compiler emits it, but it is no public function, so it may be gone one day.
    fused: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    return fused


_FUSED = _fused_convolution()


class DoubleConv(nn.Sequential):
    """B(i, o): two 3x3 convolutions with bias and zero padding, each followed by LeakyReLU(0.2).

    In inference mode each pair takes fewer passes over the features: on a CPU one kernel, on CUDA two.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            leaky(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            leaky(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, C', h, w]`."""
        if can_fuse(x):
            for conv in (self[0], self[2]):
                assert isinstance(conv, nn.Conv2d) and conv.bias is not None
                x = add_bias(F.conv2d(x, conv.weight, padding=1), conv.bias, LEAK)
            return x
        if _FUSED is None or not _fusible(x):
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        for conv in (self[0], self[2]):
            x = _FUSED(x, conv.weight, conv.bias, (1, 1), (1, 1), (1, 1), 1, "leaky_relu", [LEAK], "")
        return x


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


class WideLinear(nn.Linear):
    """A layer from few numbers to many, which reads far more weights than anything else.

    In inference mode on a CPU the weights are the left factor: for the few items of a batch that takes two thirds of
    the time of the usual order.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[B, Z]` to `[B, F]`."""
        if x.device.type != "cpu" or not torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        return torch.addmm(self.bias[:, None], self.weight, x.T).T.contiguous()


class UpConv(nn.ConvTranspose2d):
    """A transposed 2x2 convolution of stride 2 with bias, which doubles the size."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[B, C, h, w]` to `[B, C', 2h, 2w]`."""
        if self.bias is not None and can_fuse(x):
            return add_bias(F.conv_transpose2d(x, self.weight, stride=2), self.bias)
        return super().forward(x, output_size)


def _fusible(x: Tensor) -> bool:
    """Whether nothing looks at the steps one by one: no gradient, no compiler."""
    if x.device.type != "cpu" or not torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
        return False
    natively = x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return natively or (x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"))


class ResidualFilter(nn.Module):
    """`x + LeakyReLU(conv 3x3 of x)` at full sensor size; it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")

    def start_at_zero(self) -> None:
        """Make this the identity."""
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape."""
        return x + F.leaky_relu(self.conv(x), LEAK)


class SubPixelHead(nn.Sequential):
    """The output: at upscale 1 the plain convolution of the thesis, else a pixel shuffle and filters at full size.

    `conv` gives `head_channels` channels. The 3x3 filters at full size see across the 2x2 blocks that a pixel shuffle
    alone would leave visible; they repeat the border, so that no tile fades at its edge. `filters` is how many there
    are, the last of which gives the output.
    """

    def __init__(self, conv: nn.Module, channels_out: int, upscale: int, filters: int = 1) -> None:
        if upscale == 1:
            super().__init__(conv)
            return
        more = [ResidualFilter(FULL_SIZE_CHANNELS) for _ in range(filters - 1)]
        finish = nn.Conv2d(FULL_SIZE_CHANNELS, channels_out, 3, padding=1, padding_mode="replicate")
        super().__init__(conv, nn.PixelShuffle(upscale), leaky(), *more, finish)

    def start_at_zero(self) -> None:
        """Make the output zero, for networks that predict a difference."""
        last = self[-1]
        assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
        nn.init.zeros_(last.weight)


def head_channels(channels_out: int, upscale: int) -> int:
    """How many channels the convolution inside a `SubPixelHead` gives."""
    return channels_out if upscale == 1 else FULL_SIZE_CHANNELS * upscale**2


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
    for module in network.modules():
        if isinstance(module, ResidualFilter):
            module.start_at_zero()
