"""Doubling the size, joining a skip and convolving, in fewer operations than one after another.

Nothing lies between the transposed convolution of a decoder's level and the half of the 3x3 convolution that reads it,
so both are one linear step: each of the four pixels that a coarse one becomes is a 2x2 convolution of the coarse
features. Of a decoder's level with C channels that takes 8 C^2 multiplications a pixel in place of 11 C^2, the features
at the fine size are never made, and the skip need not be copied beside them.
"""

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight.models.onednn import (
    BORDER,
    DoublingConv,
    LeakyConv,
    Packs,
    add_convolution,
    can_add_convolution,
    convolution,
    is_direct,
    is_native,
    packed_convolution,
)

# Which levels, by their channels. In 16 bits one of few channels takes its time from memory, and what is added in place
# is read and written twice; in one of many the weights, kept in both forms, take more memory than features are saved.
FOLDED_CHANNELS = {torch.bfloat16: range(64, 257), torch.float32: range(1, 1 << 16)}


class FoldedJoin(Packs):
    """`LeakyReLU(conv([doubled x, skip]))` of two layers that a network has under their own names.

    For inference on a CPU, once packed. The layers keep their plain weights, from which it can be made again.
    """

    def __init__(self, up: DoublingConv, conv: LeakyConv) -> None:
        """`conv` reads what `up` gives and behind it as many channels or fewer of a skip."""
        super().__init__()
        self.layers = self.stands_for = (up, conv)  # as a tuple: they are registered, and saved, elsewhere
        self._folded: _Folded | None = None

    def pack(self, batch: int) -> bool:
        """Fold the two layers for so many tiles at a time."""
        up, conv = self.layers
        plain = not any(layer.weight.is_mkldnn or layer.weight.requires_grad for layer in self.layers)
        possible = plain and is_native(conv.weight) and can_add_convolution()
        if self._folded is None and possible and conv.out_channels in FOLDED_CHANNELS[conv.weight.dtype]:
            self._folded = _Folded(up, conv, batch)
        return self._folded is not None

    def unpack(self) -> None:
        """Forget what was folded."""
        self._folded = None

    def forward(self, x: Tensor, skip: Tensor, leak: float) -> Tensor | None:
        """`x [B, C, h, w]` and `skip [B, S, 2h, 2w]` to `[B, C', 2h, 2w]`; None where the layers are not folded."""
        if self._folded is None or tuple(x.shape[2:]) != self._folded.size or not is_direct(x):
            return None
        return F.leaky_relu_(self._folded.sums(x, skip), leak)


class _Folded:
    """The weights of a folded join, for coarse features of one size."""

    def __init__(self, up: DoublingConv, conv: LeakyConv, batch: int) -> None:
        assert up.bias is not None and conv.bias is not None
        dtype, side = conv.weight.dtype, up.side_px
        self.size, self.channels = (side, side), conv.out_channels
        weight = conv.weight.detach()
        of_up, of_skip = weight[:, : up.out_channels], weight[:, up.out_channels :]
        blocks = fold(up.weight.detach().float(), of_up.float()).to(dtype)
        self.blocks = packed_convolution(blocks, BORDER, (batch, up.in_channels, side, side))
        self.of_skip = packed_convolution(of_skip.contiguous(), BORDER, None)
        # What each tap makes of the bias of `up`; beyond the picture there is none.
        taps = torch.einsum("ocyx,c->yxo", of_up.float(), up.bias.detach().float())
        self.bias = (conv.bias.detach().float() + taps.sum((0, 1))).to(dtype)
        self.left, self.right = (taps[:, column].sum(0).to(dtype) for column in (0, 2))
        self.top, self.bottom = (self._row(taps[row]).to(dtype) for row in (0, 2))
        self.no_bias = torch.zeros(len(blocks), dtype=dtype)

    def _row(self, taps: Tensor) -> Tensor:
        """What is missing of a row at the picture's edge, `[2w, C']`; its corners lack less: columns have that."""
        row = taps.sum(0).repeat(2 * self.size[1], 1)
        row[0] -= taps[0]
        row[-1] -= taps[2]
        return row

    def sums(self, x: Tensor, skip: Tensor) -> Tensor:
        """The convolution before its activation, `[B, C', 2h, 2w]`."""
        (height, width), channels = self.size, self.channels
        blocks = convolution(x, self.blocks, self.no_bias, BORDER).permute(0, 2, 3, 1)
        picture = torch.empty(len(x), 2 * height, 2 * width, channels, dtype=x.dtype)
        for place, (row, column) in enumerate(product(range(2), range(2))):
            of_place = blocks[..., place * channels : (place + 1) * channels]
            picture[:, row::2, column::2] = of_place[:, row : row + height, column : column + width]
        picture[:, 0] -= self.top
        picture[:, -1] -= self.bottom
        picture[:, :, 0] -= self.left
        picture[:, :, -1] -= self.right
        sums = picture.permute(0, 3, 1, 2)
        add_convolution(sums, skip, self.of_skip, self.bias)
        return sums


def fold(up: Tensor, conv: Tensor) -> Tensor:
    """A transposed 2x2 convolution of stride 2, `[I, C, 2, 2]`, and a 3x3 one behind it, `[O, C, 3, 3]`, as one.

    It is a 2x2 convolution `[4 O, I, 2, 2]` of the coarse features with a border of one zero, for the upper left, upper
    right, lower left and lower right pixel of each block. Of its `[h + 1, w + 1]` values the upper pixels' first `h`
    rows count and the lower ones' last, and so with columns.
    """
    entered, left = len(up), len(conv)
    products = torch.einsum("ocyx,icab->yxaboi", conv, up)
    folded = conv.new_zeros(2, 2, left, entered, 2, 2)
    for row, column, down, right in product(range(2), range(2), range(3), range(3)):
        (below, of_row), (aside, of_column) = divmod(row + down - 1, 2), divmod(column + right - 1, 2)
        folded[row, column, :, :, below + 1 - row, aside + 1 - column] += products[down, right, of_row, of_column]
    return folded.reshape(4 * left, entered, 2, 2)
