"""Tone curves and colour matrices.

Two curves are used. LibRaw's default curve, given as (2.222, 4.5), is the one pictures are rendered with: slope 4.5
near black, then a power of 1 / 2.222. The sRGB curve (IEC 61966-2-1) is only needed to undo ordinary photographs.
"""

from functools import cache

import torch
from torch import Tensor

LIBRAW_POWER = 1 / 2.222
LIBRAW_TOE_SLOPE = 4.5
LUMA = (0.2125, 0.7154, 0.0721)  # Rec. 709 weights, as in the thesis' gray task


@cache
def libraw_knee() -> tuple[float, float]:
    """Where the toe ends (linear value) and the offset of the power part, so that value and slope are continuous.

    The curve is `4.5 x` below the knee `t` and `(1 + a) x^p - a` above it.
    """
    p, slope = LIBRAW_POWER, LIBRAW_TOE_SLOPE
    low, high = 0.0, 1.0  # bisect on a: at the knee both value and slope must agree
    for _ in range(60):
        a = (low + high) / 2
        t = (slope / ((1 + a) * p)) ** (1 / (p - 1))
        if (1 + a) * t**p - a > slope * t:
            low = a
        else:
            high = a
    return t, a


def encode(linear: Tensor) -> Tensor:
    """Linear light to LibRaw's default curve; any shape, values in [0, 1] map to [0, 1]. Not clipped."""
    t, a = libraw_knee()
    power = (1 + a) * linear.clamp(min=t).pow(LIBRAW_POWER) - a
    return torch.where(linear < t, linear * LIBRAW_TOE_SLOPE, power)


def decode(encoded: Tensor) -> Tensor:
    """LibRaw's default curve back to linear light; the inverse of `encode`. Not clipped."""
    t, a = libraw_knee()
    knee = t * LIBRAW_TOE_SLOPE
    power = ((encoded.clamp(min=knee) + a) / (1 + a)).pow(1 / LIBRAW_POWER)
    return torch.where(encoded < knee, encoded / LIBRAW_TOE_SLOPE, power)


def srgb_decode(encoded: Tensor) -> Tensor:
    """The sRGB curve (IEC 61966-2-1) back to linear light; any shape, [0, 1] to [0, 1]."""
    high = ((encoded.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(encoded <= 0.04045, encoded / 12.92, high)


def apply_matrix(rgb: Tensor, matrix: Tensor) -> Tensor:
    """Multiply colours `[..., 3, H, W]` by `matrix [..., 3, 3]` (one per leading index, or one for all)."""
    height, width = rgb.shape[-2:]
    flat = matrix.to(rgb) @ rgb.flatten(-2)
    return flat.reshape(*flat.shape[:-1], height, width)


def luma(rgb: Tensor) -> Tensor:
    """Luma of encoded sRGB `[..., 3, H, W]` as `[..., 1, H, W]`."""
    weights = torch.tensor(LUMA, dtype=rgb.dtype, device=rgb.device).view(3, 1, 1)
    return (rgb * weights).sum(-3, keepdim=True)
