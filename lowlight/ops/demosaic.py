"""Demosaicing of packed planes, for pictures that no network has touched."""

import torch
import torch.nn.functional as F
from torch import Tensor

# What a missing colour is, from the 5x5 sites around: green at red and blue; red and blue at green, whose neighbours of
# that colour lie left and right, or above and below; and at each other. Parts of 16.
_GREEN = ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0))
_BESIDE = ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0))
_ABOVE = ((0, 0, -2, 0, 0), (0, -2, 8, -2, 0), (1, 0, 10, 0, 1), (0, -2, 8, -2, 0), (0, 0, -2, 0, 0))
_ACROSS = ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0))
REACH_PX = 1  # packed pixels that a value is made of on each side
_PLANES = {(0, 0): 0, (0, 1): 1, (1, 0): 3, (1, 1): 2}  # by row and column in the 2x2 block
_SITES = tuple(_PLANES)  # in the order of the channels of a colour, below
# Planes of even and of odd rows, and of even and odd columns: a border is mirrored about another line for each.
_PARITIES = (((0, 1), (2, 3)), ((0, 3), (1, 2)))


def demosaic(planes: Tensor, *, clip: bool = True) -> Tensor:
    """Packed planes R, G1, B, G2 `[4, h, w]` (red origin) to linear RGB `[3, 2h, 2w]`; in [0, 1] or left unclipped.

    Missing colours are interpolated linearly and corrected by what the colour that is there does at this place; a site
    keeps what it measured. The border is mirrored. Source: H. Malvar, L. He and R. Cutler, High-quality linear
    interpolation for demosaicing of Bayer-patterned color images, ICASSP 2004.
    """
    _, height, width = planes.shape
    # The filters reach one block far, so that all of them are one convolution of blocks.
    values = F.conv2d(_mirrored(planes)[None], _WEIGHTS.to(planes))[0]
    if clip:
        values.clamp_(0, 1)
    rgb = planes.new_empty(3, 2 * height, 2 * width)
    for channel, plane in enumerate(values):
        row, col = _SITES[channel % 4]
        rgb[channel // 4, row::2, col::2] = plane
    return rgb


def _mirrored(planes: Tensor) -> Tensor:
    """Planes with one more value on every side, as the mosaic goes on when it is mirrored about its border pixels."""
    _, height, width = planes.shape
    whole = planes.new_empty(4, height + 2, width + 2)
    whole[:, 1:-1, 1:-1] = planes
    for axis, (even, odd) in enumerate(_PARITIES, 1):
        last = planes.shape[axis]
        for parity, sources in ((even, (min(2, last), last)), (odd, (1, max(last - 1, 1)))):
            for plane in parity:
                lines = whole[plane].movedim(axis - 1, 0)
                lines[0], lines[-1] = lines[sources[0]], lines[sources[1]]
    return whole


def _filters() -> Tensor:
    """Filters from blocks to blocks, `[3 * 4, 4, 3, 3]`: colour and site, plane, and the blocks around."""
    weights = torch.zeros(12, 4, 3, 3)
    for channel in range(12):
        colour, (row, col) = channel // 4, _SITES[channel % 4]
        taps = _taps(colour, row, col)
        if taps is None:
            weights[channel, _PLANES[row, col], 1, 1] = 1
            continue
        for down, line in enumerate(taps, -2):
            for right, tap in enumerate(line, -2):
                (below, there_row), (aside, there_col) = divmod(row + down, 2), divmod(col + right, 2)
                weights[channel, _PLANES[there_row, there_col], below + 1, aside + 1] = tap / 16
    return weights


def _taps(colour: int, row: int, col: int) -> tuple[tuple[int, ...], ...] | None:
    """How a colour is interpolated at a site; None where it is measured."""
    if colour == 1:
        return _GREEN if row == col else None
    own = colour // 2  # row and column of red or blue in a block
    if row == own:
        return None if col == own else _BESIDE
    return _ABOVE if col == own else _ACROSS


_WEIGHTS = _filters()
