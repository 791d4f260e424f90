"""Demosaicing of packed planes, for pictures that no network has touched."""

import torch
import torch.nn.functional as F
from torch import Tensor

# What a missing colour is, from the 5x5 sites around: green at red and blue; red and blue at green, whose neighbours of
# that colour lie left and right, or above and below; and at each other. Parts of 16.
_FILTERS = (
    ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0)),
    ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0)),
    ((0, 0, -2, 0, 0), (0, -2, 8, -2, 0), (1, 0, 10, 0, 1), (0, -2, 8, -2, 0), (0, 0, -2, 0, 0)),
    ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0)),
)
REACH_PX = 1  # packed pixels that a value is made of on each side
_SITES = ((0, 0, 0), (1, 0, 1), (3, 1, 0), (2, 1, 1))  # plane, row and column in the 2x2 block


def demosaic(planes: Tensor) -> Tensor:
    """Packed planes R, G1, B, G2 `[4, h, w]` (red origin) to linear RGB `[3, 2h, 2w]`; values in [0, 1].

    Missing colours are interpolated linearly and corrected by what the colour that is there does at this place; a site
    keeps what it measured. The border is mirrored. Source: H. Malvar, L. He and R. Cutler, High-quality linear
    interpolation for demosaicing of Bayer-patterned color images, ICASSP 2004.
    """
    _, height, width = planes.shape
    mosaic = planes.new_empty(2 * height, 2 * width)
    for plane, row, col in _SITES:
        mosaic[row::2, col::2] = planes[plane]
    mode = "reflect" if min(mosaic.shape) > 2 else "replicate"
    around = F.pad(mosaic[None, None], (2, 2, 2, 2), mode=mode)
    filters = torch.tensor(_FILTERS, dtype=planes.dtype, device=planes.device)[:, None] / 16
    green, beside, above, across = F.conv2d(around, filters)[0].clamp_(0, 1)
    rgb = mosaic.expand(3, -1, -1).clone()
    for colour, (row, col) in ((0, (0, 0)), (2, (1, 1))):
        own, other = (slice(row, None, 2), slice(col, None, 2)), (slice(1 - row, None, 2), slice(1 - col, None, 2))
        rgb[1][own] = green[own]
        rgb[colour][own[0], other[1]] = beside[own[0], other[1]]
        rgb[colour][other[0], own[1]] = above[other[0], own[1]]
        rgb[colour][other] = across[other]
    return rgb
