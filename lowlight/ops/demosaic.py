"""Plain bilinear demosaicing of packed planes, for pictures that no network has touched."""

import torch
import torch.nn.functional as F
from torch import Tensor


def demosaic(planes: Tensor) -> Tensor:
    """Packed planes R, G1, B, G2 `[4, h, w]` (red origin, RGGB) to linear RGB `[3, 2h, 2w]` by interpolation.

    Missing colours are means of the nearest sites of that colour; at the border the nearest sites there are.
    """
    _, height, width = planes.shape
    sites = torch.zeros(3, 2 * height, 2 * width, dtype=planes.dtype, device=planes.device)
    counts = torch.zeros_like(sites)
    for plane, colour, row, col in ((0, 0, 0, 0), (1, 1, 0, 1), (3, 1, 1, 0), (2, 2, 1, 1)):
        sites[colour, row::2, col::2] = planes[plane]
        counts[colour, row::2, col::2] = 1
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]).to(planes)
    kernel = kernel.expand(3, 1, 3, 3)
    total = F.conv2d(sites[None], kernel, padding=1, groups=3)
    weight = F.conv2d(counts[None], kernel, padding=1, groups=3)
    smooth = (total / weight)[0]
    # A site keeps what it measured.
    return torch.where(counts > 0, sites, smooth)
