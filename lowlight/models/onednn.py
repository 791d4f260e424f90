"""Layers that ask oneDNN, PyTorch's library for CPUs, for what it does better when it is asked directly.

A convolution and its activation take one pass over the features instead of two. Weights that only serve inference can
be kept in the layout that oneDNN computes in; otherwise it brings them there in every call, which for the deep layers
of SID-net and a few tiles takes as long as a third of the convolution. PyTorch's own compiler calls the same operators,
but they are no public functions, so they may be gone one day: then nothing here is used.
"""

import platform
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

_Operator = Callable[..., Tensor]


def _operator(name: str) -> _Operator | None:
    """An operator of oneDNN that PyTorch has no public name for; None where this PyTorch has none."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    found: _Operator | None = getattr(torch.ops.mkldnn, name, None)
    return found


_CONVOLVE, _PACK_CONVOLUTION = _operator("_convolution_pointwise"), _operator("_reorder_convolution_weight")
_CONVOLVE_ONTO = getattr(_operator("_convolution_pointwise_"), "binary", None)
_MULTIPLY, _PACK_LINEAR = _operator("_linear_pointwise"), _operator("_reorder_linear_weight")
NO_BORDER, BORDER = (0, 0), (1, 1)  # of zeros around what a convolution reads
_ONE = (1, 1)  # stride and dilation
MOST_TILES = 256  # at a time, for which layouts are chosen


def is_native(x: Tensor) -> bool:
    """Whether oneDNN computes in the number format of a tensor."""
    if x.device.type != "cpu" or None in (_CONVOLVE, _PACK_CONVOLUTION, _MULTIPLY, _PACK_LINEAR):
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_direct(x: Tensor) -> bool:
    """Whether oneDNN may be asked directly: nothing looks at the steps, neither gradient nor compiler."""
    if not torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
        return False
    return is_native(x) and not (x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"))


def pack_weights(network: nn.Module, batch: int) -> None:
    """Keep the weights of a network that only infers, on so many tiles at a time, as oneDNN computes with them.

    Nothing is done where it does not compute in their number format, and no layout is chosen for more tiles than memory
    holds at a time. The layers give plain weights back to whoever moves, converts, saves, copies or trains them.
    """
    batch = min(batch, MOST_TILES)
    parts = [part for part in network.modules() if isinstance(part, Packs)]
    spared = {layer for part in parts if part.stands_for and part.pack(batch) for layer in part.stands_for}
    for part in parts:
        if not part.stands_for and part not in spared:
            part.pack(batch)


class Packs(nn.Module):
    """A part of a network that can keep weights as oneDNN computes with them, until they are wanted otherwise.

    What raises `NotImplementedError` is for subclasses: modules have PyTorch's metaclass, not that of abstract classes.
    """

    stands_for: "tuple[Packs, ...]" = ()  # further parts, whose weights it has in its own form then

    def pack(self, batch: int) -> bool:
        """Keep them so for so many tiles at a time; False where that cannot be, or not while they are trained."""
        raise NotImplementedError

    def unpack(self) -> None:
        """Have plain weights again."""
        raise NotImplementedError

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.unpack()  # to be moved, converted or shared
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> Self:
        """Set the mode; who trains finds plain weights."""
        if mode:
            self.unpack()
        return super().train(mode)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.unpack()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*arguments, **named)

    def __getstate__(self) -> dict[str, Any]:
        self.unpack()  # to be copied
        return dict(self.__dict__)


class PackedWeight(Packs):
    """A layer whose `weight` may lie in oneDNN's layout, which is then the only copy in memory."""

    weight: Tensor

    def pack(self, batch: int) -> bool:
        """Bring the weight there, unless it is being trained."""
        if not self.weight.is_mkldnn and not self.weight.requires_grad and is_native(self.weight):
            self.weight = nn.Parameter(self._packed(self.weight.detach(), batch), requires_grad=False)
        return self.weight.is_mkldnn

    def unpack(self) -> None:
        """Bring the weight back, bit for bit."""
        if self.weight.is_mkldnn:
            with torch.inference_mode(False):
                wanted = self.weight.requires_grad
                self.weight = nn.Parameter(self._as_it_was(self.weight.to_dense()), requires_grad=wanted)

    def _packed(self, weight: Tensor, batch: int) -> Tensor:
        """The weight in the layout that this kind of layer computes with."""
        raise NotImplementedError

    def _as_it_was(self, weight: Tensor) -> Tensor:
        return weight


class LeakyConv(PackedWeight, nn.Conv2d):
    """A 3x3 convolution with bias and zero padding, which can take the activation behind it along."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution alone, `[B, C, h, w]` to `[B, C', h, w]`."""
        self.unpack()
        return super().forward(x)

    def with_leak(self, x: Tensor, leak: float) -> Tensor | None:
        """The convolution and LeakyReLU in one kernel; None where that cannot be had."""
        if not is_direct(x):
            return None
        return convolution(x, self.weight, self.bias, BORDER, "leaky_relu", leak)

    def _packed(self, weight: Tensor, batch: int) -> Tensor:
        return packed_convolution(weight, BORDER, None)  # as good as for any size it will see


class DoublingConv(PackedWeight, nn.ConvTranspose2d):
    """A transposed 2x2 convolution of stride 2 with bias: each value becomes a block of four, which overlaps no other.

    So it is a 1x1 convolution to four times the channels, which takes half of the time, and putting those in place.
    """

    def __init__(self, channels_in: int, channels_out: int, side_px: int) -> None:
        """`side_px` is the height and width that it is best for; others are taken too."""
        super().__init__(channels_in, channels_out, 2, stride=2)
        self.side_px = side_px

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[B, C, h, w]` to `[B, C', 2h, 2w]`."""
        self.unpack()
        return super().forward(x, output_size)

    def joined(self, x: Tensor, skip: Tensor) -> Tensor | None:
        """The same with `skip [B, S, 2h, 2w]` as further channels, in fewer steps; None where the weight is plain."""
        if not self.weight.is_mkldnn or not is_direct(x):
            return None
        assert self.bias is not None
        count, _, height, width = x.shape
        channels = self.out_channels + skip.shape[1]
        blocks = convolution(x, self.weight, torch.cat((self.bias,) * 4), NO_BORDER).permute(0, 2, 3, 1)
        blocks = blocks.reshape(count, height, width, 2, 2, self.out_channels)
        whole = torch.empty(count, height, 2, width, 2, channels, dtype=x.dtype)
        whole[..., : self.out_channels] = blocks.transpose(2, 3)
        picture = whole.view(count, 2 * height, 2 * width, channels)
        picture[..., self.out_channels :] = skip.permute(0, 2, 3, 1)
        return picture.permute(0, 3, 1, 2)

    def _packed(self, weight: Tensor, batch: int) -> Tensor:
        pixels = (batch, self.in_channels, self.side_px, self.side_px)
        return packed_convolution(weight.permute(2, 3, 1, 0).reshape(-1, self.in_channels, 1, 1), NO_BORDER, pixels)

    def _as_it_was(self, weight: Tensor) -> Tensor:
        return weight.reshape(2, 2, self.out_channels, self.in_channels).permute(3, 2, 0, 1).contiguous()


class PackedLinear(PackedWeight, nn.Linear):
    """A layer whose weights are many and whose batch is small: reading the weights is what takes its time."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F]` to `[B, F']`."""
        if not self.weight.is_mkldnn or not is_direct(x):
            self.unpack()
            return super().forward(x)
        assert _MULTIPLY is not None
        return _MULTIPLY(x.contiguous(), self.weight, self.bias, "none", [], "")

    def _packed(self, weight: Tensor, batch: int) -> Tensor:
        assert _PACK_LINEAR is not None
        return _PACK_LINEAR(weight, batch)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], activation: str = "none", *how: float
) -> Tensor:
    """A convolution and what follows it, in one kernel, where `is_direct(x)`; the weight plain or packed."""
    assert _CONVOLVE is not None
    return _CONVOLVE(x, weight, bias, padding, _ONE, _ONE, 1, activation, list(how), "")


def can_add_convolution() -> bool:
    """Whether this PyTorch has what `add_convolution` asks for."""
    return _CONVOLVE_ONTO is not None


def add_convolution(onto: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Add a convolution with a border of one zero to a tensor, in place, where `is_direct(x)`."""
    assert _CONVOLVE_ONTO is not None
    _CONVOLVE_ONTO(onto, x, weight, bias, BORDER, _ONE, _ONE, 1, "add", 1.0, None, [], None)


def packed_convolution(weight: Tensor, padding: tuple[int, int], pixels: tuple[int, ...] | None) -> Tensor:
    """The weight in the layout that is best where `pixels [B, C, h, w]` are read."""
    assert _PACK_CONVOLUTION is not None
    return _PACK_CONVOLUTION(weight, padding, _ONE, _ONE, 1, pixels)
