"""Diagonal normal distributions: draws and divergences."""

import math

import torch
from torch import Tensor

from lowlight.core.restoration import Gaussian, Noise, Share

LOG_VARIANCE_RANGE = (-10.0, 10.0)


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of diagonal normals, summed over all axes but the first, `[B]`, in float32.

    Source: thesis, section on conditional VAEs: `1/2 sum [log(vp/vq) - 1 + vq/vp + (mq - mp)^2 / vp]`.
    """
    q_log, p_log = q.log_variance.float(), p.log_variance.float()
    gap = q.mean.float() - p.mean.float()
    terms = p_log - q_log - 1 + (q_log - p_log).exp() + gap.square() * (-p_log).exp()
    return 0.5 * terms.flatten(1).sum(1)


def draw(q: Gaussian, noise: Tensor) -> Tensor:
    """Reparametrised sample `mean + exp(log_variance / 2) * noise`, in the graph of the mean and log-variance."""
    return q.mean + (0.5 * q.log_variance).exp() * noise


def standard_noise(like: Tensor, generator: torch.Generator | None, share: Share | None = None) -> Tensor:
    """Standard normal noise shaped like a tensor, from an explicit generator (drawn on its device, then moved).

    Where the items are a `share` of a batch, they get the rows of noise that they have in the whole batch.
    """
    device = generator.device if generator is not None else like.device
    count = len(like) if share is None else share.whole
    noise = torch.randn((count, *like.shape[1:]), generator=generator, device=device)
    if share is not None:
        noise = noise[share.first : share.first + len(like)]
    return noise.to(like)


def clamp_log_variance(log_variance: Tensor) -> Tensor:
    """Keep log-variances in [-10, 10], so that no draw overflows early in training."""
    return log_variance.clamp(*LOG_VARIANCE_RANGE)


def log_normal(z: Tensor, p: Gaussian) -> Tensor:
    """Log-density of a draw under a diagonal normal, summed over the latent axes, `[B]`, in float32."""
    log_variance = p.log_variance.float()
    squared = (z.float() - p.mean.float()).square() * (-log_variance).exp()
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).flatten(1).sum(1)


def standard_normal(like: Tensor) -> Gaussian:
    """N(0, I) of a tensor's shape, in float32."""
    zeros = torch.zeros_like(like, dtype=torch.float32)
    return Gaussian(zeros, zeros)


def fix_from(noise: Noise, level: int) -> Noise:
    """Noise of a pyramid, coarsest first, that leaves `level` and all coarser levels at their means (level 1: all)."""
    return tuple(torch.zeros_like(one) if len(noise) - place >= level else one for place, one in enumerate(noise))
