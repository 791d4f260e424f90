"""Where a coarse picture was painted, and how what is rendered from it joins what was there before."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.errors import UsageError

THRESHOLD = 2 / 255  # of a value of the coarse picture: what differs by more was painted


def changed_region(painted: Tensor, exported: Tensor) -> Tensor:
    """The pixels `[B, 1, h, w]`, bool, in which two coarse pictures `[B, C, h, w]` differ by more than 2/255."""
    if painted.shape != exported.shape:
        raise UsageError(
            f"the painted picture has {painted.shape[-1]} x {painted.shape[-2]} pixels and the exported one "
            f"{exported.shape[-1]} x {exported.shape[-2]}; paint it without changing its size"
        )
    return (painted - exported).abs().amax(1, keepdim=True) > THRESHOLD


def blend_mask(region: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """The weight `[B, 1, H, W]` in [0, 1] of what is rendered, from a painted region `[B, 1, h, w]`.

    The region is enlarged by `factor` (full pixels a coarse one has along a side, 2^(k-1) at level k of a pyramid at
    packed size), dilated by as many pixels and feathered with a Gaussian of that radius. It is exactly 0 further away.
    """
    large = region.float().repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    height, width = size
    large = F.pad(large, (0, max(width - large.shape[-1], 0), 0, max(height - large.shape[-2], 0)), mode="replicate")[
        ..., :height, :width
    ]
    return feather(dilate(large, factor), factor)


def dilate(mask: Tensor, radius: int) -> Tensor:
    """The largest value of `[B, 1, H, W]` in a square of `radius` pixels about each."""
    side = 2 * radius + 1
    rows = F.max_pool2d(mask, (side, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, radius))


def feather(mask: Tensor, radius: int) -> Tensor:
    """Filter `[B, 1, H, W]` with a Gaussian that ends `radius` pixels away, at two standard deviations."""
    offsets = torch.arange(-radius, radius + 1, dtype=mask.dtype, device=mask.device)
    taps = (-0.5 * (2 * offsets / max(radius, 1)).square()).exp()
    taps = taps / taps.sum()
    padded = F.pad(mask, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, taps.view(1, 1, -1, 1))
    return F.conv2d(rows, taps.view(1, 1, 1, -1)).clamp(0, 1)


def blend(reconstruction: Tensor, rendered: Tensor, mask: Tensor) -> Tensor:
    """`m * rendered + (1 - m) * reconstruction`; where the mask `[B, 1, H, W]` is 0, the reconstruction exactly."""
    return torch.where(mask > 0, torch.lerp(reconstruction, rendered, mask.expand_as(rendered)), reconstruction)
