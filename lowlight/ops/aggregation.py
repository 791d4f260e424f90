"""Sets of features to one: what makes a network indifferent to the number and the order of its frames.

Source: F. Duffhauss et al., FusionVAE, ECCV 2022, section 3.4. Sets are `[B, K, C, h, w]` with K at least 1. What
comes of one by maximum or mean lies in memory with its channels last, as convolutions like it best.
"""

import torch
from torch import Tensor

from lowlight.core.restoration import Gaussian


def fuse_max(features: Tensor) -> Tensor:
    """Largest value of each feature over the set, `[B, C, h, w]`."""
    return features.movedim(2, -1).amax(1).movedim(-1, 1)


def fuse_mean(features: Tensor) -> Tensor:
    """Mean of each feature over the set, `[B, C, h, w]`."""
    return features.movedim(2, -1).mean(1).movedim(-1, 1)


def fuse_normals(members: Gaussian, *, deviations: bool = False) -> Gaussian:
    """Fuse normals `[B, K, C, h, w]` one after the other by Bayes' rule, in float32.

    With `q = v / (v + v_i)`: the mean moves by `q (m_i - m)` and v becomes `v (1 - q)` (equations 6 and 7), which
    is the mean weighted by precision, whatever the order. `deviations` puts standard deviations where the equations
    have variances, as the authors' program does.
    """
    factor = 0.5 if deviations else 1.0
    means = members.mean.float().unbind(1)
    spreads = (factor * members.log_variance.float()).exp().unbind(1)
    mean, spread = means[0], spreads[0]
    for other_mean, other_spread in zip(means[1:], spreads[1:], strict=True):
        share = spread / (spread + other_spread)
        mean = mean + share * (other_mean - mean)
        spread = spread * (1 - share)
    return Gaussian(mean, spread.log() / factor)


def mean_frame(frames: Tensor) -> Tensor:
    """Mean of frames `[B, K, C, h, w]` as a set of one, `[B, 1, C, h, w]`; exactly the same in any order."""
    return torch.sort(frames, dim=1).values.mean(1, keepdim=True)
