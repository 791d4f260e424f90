"""Whether pictures as a whole are as bright as their references: the divergence of their luma histograms.

Source: thesis, section on metrics. Histograms have 256 bins and are pooled over all pictures.
"""

import torch
from torch import Tensor

from lowlight.ops.color import luma

BINS = 256


def luma_histogram(picture: Tensor) -> Tensor:
    """Count the pixels of each luma `round(255 * luma)`, int64 `[256]` on the CPU.

    `picture [C, H, W]` is encoded, in [0, 1] (values outside count as 0 or 255); C is 3, or 1 for gray.
    Counts of several pictures are pooled by adding them.
    """
    gray = luma(picture) if picture.shape[0] == 3 else picture
    levels = gray.mul(BINS - 1).round_().clamp_(0, BINS - 1).long()
    return torch.bincount(levels.flatten(), minlength=BINS).cpu()


def jensen_shannon(counts: Tensor, reference_counts: Tensor) -> float:
    """Jensen-Shannon divergence of two histograms in bits: 0 for equal shapes, 1 for disjoint ones."""
    p, q = (each.double() / each.sum() for each in (counts, reference_counts))
    middle = (p + q) / 2
    return float((_relative_entropy_bits(p, middle) + _relative_entropy_bits(q, middle)) / 2)


def _relative_entropy_bits(p: Tensor, q: Tensor) -> Tensor:
    some = p > 0  # 0 log 0 = 0
    return (p[some] * (p[some] / q[some]).log2()).sum()
