"""Amplifying a packed frame, metering how much, and the base picture a network may start from.

Planes are in the order R, G1, B, G2; values are linear, 0 = black, 1 = white.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.restoration import InputColour, OutputColour
from lowlight.ops.color import apply_matrix, encode

RATIO_RANGE = (1.0, 300.0)
BASE_BLOCK_PX = 16  # packed pixels averaged into one value of the low-pass base

METER_BLOCK_PX = 16
METER_BAND = (0.60, 0.95)  # quantiles between which block means are averaged
METER_TARGET = 0.16  # where that average is put, as a fraction of white


def amplify(packed: Tensor, ratio: Tensor | float, gains: Tensor | None, colour: InputColour) -> Tensor:
    """`min(packed * ratio, 1)`, then for `wb` input `min(. * gains, 1)`.

    `packed [..., 4, h, w]`; `ratio` broadcasts against it; `gains [..., 4]` are white-balance gains with minimum 1.
    Source: thesis, "amplified by the ratio and clipped"; the balanced variant is this project's.
    """
    bright = (packed * ratio).clamp_(max=1.0)
    if colour == "raw":
        return bright
    if gains is None:
        raise ValueError("white-balanced input needs gains")
    return bright.mul_(gains[..., None, None].to(bright)).clamp_(max=1.0)


def block_means(planes: Tensor, block: int) -> Tensor:
    """Means over `block` x `block` pixels, `[..., h, w]` to `[..., ceil(h/block), ceil(w/block)]`.

    Blocks at the bottom and right average only the pixels they have.
    """
    flat = planes.reshape(-1, *planes.shape[-2:])  # pooling takes at most two leading axes
    means = F.avg_pool2d(flat, block, ceil_mode=True, count_include_pad=False)
    return means.reshape(*planes.shape[:-2], *means.shape[-2:])


def choose_ratio(signed: Tensor) -> float:
    """Meter one packed frame and say by how much to amplify it, in [1, 300].

    `signed [4, h, w]` must not have been clipped at black: clipping would turn noise into light. Means over blocks
    of green make noise and quantisation small; averaging only blocks between two quantiles leaves out light sources
    at the top, and at the bottom the shadows, where an error of the black level would weigh most. The rule is linear,
    so half the light gives twice the ratio.
    """
    return ratio_at(meter_level(signed))


def meter_level(signed: Tensor) -> float:
    """The level that `choose_ratio` brings to its target, as a fraction of white; `signed [4, h, w]`."""
    return level_of(metered_means(signed, metering_block(*signed.shape[1:])))


def metering_block(height: int, width: int) -> int:
    """How many packed pixels each way make one of the blocks that a frame of this packed size is metered by."""
    return max(min(METER_BLOCK_PX, min(height, width) // 8), 1)


def metered_means(signed: Tensor, block: int) -> Tensor:
    """Block means of green in rows of a frame, `signed [4, h, w]` to `[n]`; the rows begin with a block's first."""
    return block_means((signed[1:2] + signed[3:4]) / 2, block).flatten()


def ratio_for(means: Tensor) -> float:
    """The amplification for a frame whose blocks have these means, `[n]` in any order; see `choose_ratio`."""
    return ratio_at(level_of(means))


def ratio_at(level: float) -> float:
    """The amplification that brings a level to `METER_TARGET`; see `choose_ratio`."""
    if not level > 0:
        return RATIO_RANGE[1]
    return min(max(METER_TARGET / level, RATIO_RANGE[0]), RATIO_RANGE[1])


def level_of(means: Tensor) -> float:
    """The mean of the block means `[n]` that lie between two quantiles, in any order."""
    means = means.sort().values
    low, high = (int(q * (len(means) - 1)) for q in METER_BAND)
    return float(means[low : high + 1].mean())


def packed_to_rgb(planes: Tensor) -> Tensor:
    """R, G1, B, G2 planes `[..., 4, h, w]` to R, G, B `[..., 3, h, w]` with the mean of the greens."""
    r, g1, b, g2 = planes.unbind(-3)
    return torch.stack((r, (g1 + g2) / 2, b), dim=-3)


def lowpass_base(balanced: Tensor, colour: OutputColour, camera_to_srgb: Tensor | None) -> Tensor:
    """The coarse picture a network may add its output to, one value per block, encoded, `[..., 3, hb, wb]`.

    `balanced [..., 4, h, w]` is amplified, white-balanced and clipped. Means are taken in linear light, brought to
    the output's colours and encoded. Not upsampled: see `upsample_window`.
    """
    coarse = block_means(packed_to_rgb(balanced), BASE_BLOCK_PX)
    return develop_means(coarse, colour, camera_to_srgb)


def develop_means(coarse: Tensor, colour: OutputColour, camera_to_srgb: Tensor | None) -> Tensor:
    """Linear balanced camera colours `[..., 3, hb, wb]` to the encoded output colours."""
    if colour == "srgb" and camera_to_srgb is not None:
        coarse = apply_matrix(coarse, camera_to_srgb).clamp(0, 1)
    return encode(coarse)


def upsample_window(coarse: Tensor, top: int, left: int, size: int, upscale: int, block: int) -> Tensor:
    """Bilinear upsampling of one window of a coarse picture, as if the whole had been upsampled and cut.

    `coarse [..., hb, wb]` has one value per `block` packed pixels; the window starts at packed `(top, left)` and is
    `size` packed pixels wide and high. Returns `[..., upscale*size, upscale*size]`. Beyond the outermost block
    centres values are held.
    """
    rows = interpolation(coarse.shape[-2], top, size, upscale, block, coarse.device).to(coarse.dtype)
    cols = interpolation(coarse.shape[-1], left, size, upscale, block, coarse.device).to(coarse.dtype)
    return rows @ coarse @ cols.transpose(-1, -2)


def interpolation(count: int, start: int, size: int, upscale: int, block: int, device: torch.device) -> Tensor:
    """Matrix `[upscale*size, count]`, float32, that interpolates an axis of `upsample_window` between block centres."""
    fine = torch.arange(size * upscale, device=device, dtype=torch.float32)
    packed = start + (fine + 0.5) / upscale
    position = (packed / block - 0.5).clamp(0, count - 1)
    lower = position.floor().clamp(max=max(count - 2, 0))
    fraction = (position - lower)[:, None]
    index = torch.arange(count, device=device, dtype=torch.float32)[None]
    return (index == lower[:, None]) * (1 - fraction) + (index == lower[:, None] + 1) * fraction
