"""Pictures at full sensor size from features at packed size."""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight.models.blocks import LEAK, leaky
from lowlight.models.onednn import convolution, is_direct

FULL_SIZE_CHANNELS = 8  # at full sensor size every channel costs four times as much
BLOCK = tuple(product(range(2), range(2)))  # the places of a 2x2 block, row and column


class ResidualFilter(nn.Module):
    """`x + LeakyReLU(conv 3x3 of x)` at full sensor size; it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")

    def start_as_identity(self) -> None:
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

    def into(self, picture: Tensor, x: Tensor) -> None:
        """Fill a picture `[B, C', u*h, u*w]`, float32, as `forward` would; at full size in a quarter of the time.

        There the filter is applied before the pixel shuffle: one of `C` channels becomes one of `4 C` channels to the
        four places of a block, most of it zeros, but the features at full size, border and all, need not be made.
        """
        finish = self[-1]
        if len(self) != 4 or not isinstance(finish, nn.Conv2d) or not is_direct(x):
            picture.copy_(self(x))
            return
        assert finish.bias is not None
        around, weight = with_border(self._features(x)), filter_of_blocks(finish.weight)
        blocks = convolution(around, weight, finish.bias.repeat_interleave(4), (0, 0))
        blocks = blocks.view(len(x), -1, 2, 2, *blocks.shape[2:])
        for row, column in BLOCK:
            picture[:, :, row::2, column::2] = blocks[:, :, row, column]

    def _features(self, x: Tensor) -> Tensor:
        """The blocks after the activation, which does not mind where they lie."""
        first = self[0]
        if isinstance(first, nn.Conv2d) and first.kernel_size == (1, 1):
            return convolution(x, first.weight, first.bias, (0, 0), "leaky_relu", LEAK)
        return F.leaky_relu(first(x), LEAK)

    def start_at_zero(self) -> None:
        """Make the output zero, for networks that predict a difference."""
        last = self[-1]
        assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
        nn.init.zeros_(last.weight)


def filter_of_blocks(weight: Tensor) -> Tensor:
    """A 3x3 filter `[O, C, 3, 3]` as one that reads and gives 2x2 blocks, `[4 O, 4 C, 3, 3]` in the order of a shuffle.

    `pixel_shuffle(conv(x, filter_of_blocks(w)), 2)` is `conv(pixel_shuffle(x, 2), w)` inside the picture.
    """
    padded = F.pad(weight.flatten(2), (0, 1))  # the tenth is zero
    spread = padded[..., _TAPS].permute(0, 2, 3, 1, 4, 5, 6, 7)
    return spread.reshape(4 * weight.shape[0], 4 * weight.shape[1], 3, 3)


def with_border(blocks: Tensor) -> Tensor:
    """Blocks `[B, 4 C, h, w]` with one more on every side, so that the picture they make repeats its border.

    Of the blocks around only the halves that touch the picture are filled; the others, zero, are not looked at.
    """
    count, channels, height, width = blocks.shape
    whole = torch.empty(count, height + 2, width + 2, channels, dtype=blocks.dtype, device=blocks.device)
    whole[:, 1:-1, 1:-1] = blocks.permute(0, 2, 3, 1)
    for edge in (whole[:, 0], whole[:, -1], whole[:, :, 0], whole[:, :, -1]):
        edge.zero_()
    halves = whole.view(count, height + 2, width + 2, channels // 4, 2, 2)
    for outer, inner, near, far in ((0, 1, 1, 0), (-1, -2, 0, 1)):
        halves[:, outer, 1:-1, :, near] = halves[:, inner, 1:-1, :, far]
    for outer, inner, near, far in ((0, 1, 1, 0), (-1, -2, 0, 1)):
        halves[:, :, outer, :, :, near] = halves[:, :, inner, :, :, far]
    return whole.permute(0, 3, 1, 2)


def head_channels(channels_out: int, upscale: int) -> int:
    """How many channels the convolution inside a `SubPixelHead` gives."""
    return channels_out if upscale == 1 else FULL_SIZE_CHANNELS * upscale**2


def _taps() -> Tensor:
    """Which tap of a 3x3 filter leads from a place of a block near by to a place of a block; 9 where none does."""
    # To row and column, from row and column, of the block above to that below, of the left to the right.
    taps = torch.full((2, 2, 2, 2, 3, 3), 9)
    for (row, column), down, right in product(BLOCK, range(3), range(3)):
        (below, from_row), (aside, from_column) = divmod(row + down - 1, 2), divmod(column + right - 1, 2)
        taps[row, column, from_row, from_column, below + 1, aside + 1] = 3 * down + right
    return taps


_TAPS = _taps()
