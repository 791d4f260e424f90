"""Gaussian and Laplacian pyramids: pictures of half the size, and what each size adds to the one below.

`x_k = h_k + u(x_{k+1})` with k = 1 the finest level and K the coarsest, whose picture is kept as it is; d halves and
u doubles the size. Source: P. Burt, E. Adelson, The Laplacian Pyramid as a Compact Image Code (1983), the `binomial`
filter; the `box` filter is the mean of 2x2 blocks and bilinear interpolation. Because `h_k = x_k - u(d(x_k))`,
recomposing is exact for any filter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.restoration import Latent

PyramidFilter = Literal["box", "binomial"]
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_REACH = 2  # taps of the binomial filter to each side


@dataclass(frozen=True)
class PyramidLevel:
    """What one level of a pyramid network says about its band, for an objective to score.

    `target` and `mean` are `[B, C', n, n]`: the true band (the picture itself at the coarsest level) and the
    likelihood's mean. `log_variance` broadcasts to them, None for a likelihood of fixed width. `low` is the
    low-frequency picture that the level was given, None at the coarsest. `read` is the band as the encoder read it,
    where it was asked to require gradients; `decode` gives the mean for another draw of the level's latent.
    """

    level: int  # 1: the finest
    target: Tensor
    mean: Tensor
    latent: Latent
    log_variance: Tensor | None = None
    low: Tensor | None = None
    read: Tensor | None = None
    decode: Callable[[Tensor], Tensor] | None = None


def down(x: Tensor, kind: PyramidFilter = "box") -> Tensor:
    """Half the size: `[B, C, H, W]` with even sides to `[B, C, H/2, W/2]`, any range, not clipped."""
    if kind == "box":
        return F.avg_pool2d(x, 2)
    return _binomial(x)[..., ::2, ::2]


def up(x: Tensor, kind: PyramidFilter = "box") -> Tensor:
    """Twice the size: `[B, C, h, w]` to `[B, C, 2h, 2w]`; constants stay constant, ramps stay ramps inside."""
    if kind == "box":
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    height, width = x.shape[-2:]
    spread = x.new_zeros(*x.shape[:-2], 2 * height, 2 * width)
    spread[..., ::2, ::2] = x
    return 4 * _binomial(spread)


def gaussian_pyramid(x: Tensor, levels: int, kind: PyramidFilter = "box") -> tuple[Tensor, ...]:
    """The pictures x_1 ... x_K, finest first, of `[B, C, H, W]` whose sides are multiples of 2^(K-1)."""
    pictures = [x]
    for _ in range(levels - 1):
        pictures.append(down(pictures[-1], kind))
    return tuple(pictures)


def decompose(x: Tensor, levels: int, kind: PyramidFilter = "box") -> tuple[Tensor, ...]:
    """The bands h_1 ... h_{K-1} and the picture x_K, finest first; the inverse of `recompose`.

    Other sides than multiples of 2^(K-1) are padded at the bottom and the right by reflection first.
    """
    step = 1 << (levels - 1)
    height, width = x.shape[-2:]
    pictures = gaussian_pyramid(reflect_pad(x, 0, -height % step, 0, -width % step), levels, kind)
    bands = [fine - up(coarse, kind) for fine, coarse in pairwise(pictures)]
    return (*bands, pictures[-1])


def recompose(
    bands: tuple[Tensor, ...], size: tuple[int, int] | None = None, kind: PyramidFilter = "box"
) -> tuple[Tensor, ...]:
    """The pictures x_1 ... x_K, finest first, from what `decompose` gave; x_1 is cropped to `size` where given."""
    pictures = [bands[-1]]
    for band in reversed(bands[:-1]):
        pictures.append(band + up(pictures[-1], kind))
    if size:
        pictures[-1] = pictures[-1][..., : size[0], : size[1]]
    return tuple(reversed(pictures))


def reflect_pad(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Mirror the last two axes about their border pixels; repeats where a side is shorter than the padding."""
    if top or bottom:
        x = x.index_select(-2, _mirrored(x.shape[-2], top, bottom, x.device))
    if left or right:
        x = x.index_select(-1, _mirrored(x.shape[-1], left, right, x.device))
    return x


def _mirrored(length: int, before: int, after: int, device: torch.device) -> Tensor:
    index = torch.arange(-before, length + after, device=device)
    if length == 1:
        return torch.zeros_like(index)
    period = 2 * (length - 1)
    index = index % period
    return torch.minimum(index, period - index)


def _binomial(x: Tensor) -> Tensor:
    """Filter with 1 4 6 4 1 / 16 along both axes; on zero-spread pictures the mirror keeps the zeros' places."""
    channels = x.shape[-3]
    taps = torch.tensor(_BINOMIAL, dtype=x.dtype, device=x.device)
    padded = reflect_pad(x, _REACH, _REACH, _REACH, _REACH)
    with torch.autocast(x.device.type, enabled=False):  # a band must not carry rounding errors of the picture
        rows = F.conv2d(padded, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
