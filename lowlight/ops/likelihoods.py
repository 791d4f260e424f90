"""Likelihoods of pictures: p(x|parameters) of targets `[B, C', H, W]` in [0, 1], and the picture they stand for.

Parameters are `[B, P, H, W]`; how many channels P a likelihood needs depends on the picture's. Sums run over the
channels and pixels of an item, in float32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.restoration import Likelihood, Restoration

MIXTURE = 10  # logistic distributions in a mixture
LEAST_LOG_SCALE = -7.0
HALF_BIN = 1 / 255  # of an 8-bit value, where values reach from -1 to 1


@dataclass(frozen=True)
class LikelihoodEntry:
    """A likelihood.

    `error(parameters, target)` is `-log p` per item `[B]` without `constant`, a number per value of the target that
    no network can change. `mean(parameters)` is the picture, `[B, C', H, W]`. `only_mean` says that parameters are
    that picture and nothing more.
    """

    error: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]
    parameter_channels: Callable[[int], int]
    constant: float = 0.0
    only_mean: bool = False

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """`log p(target | parameters)` per item, `[B]`, in nats."""
        return -self.error(parameters, target) - self.constant * target[0].numel()


def laplace_error(mean: Tensor, target: Tensor) -> Tensor:
    """Sum of absolute differences: a Laplace distribution of scale 1."""
    assert mean.shape == target.shape, (mean.shape, target.shape)  # broadcasting would go unnoticed
    return (mean.float() - target.float()).abs().flatten(1).sum(1)


def gaussian_error(mean: Tensor, target: Tensor) -> Tensor:
    """Half the sum of squared differences: a normal distribution of variance 1."""
    assert mean.shape == target.shape, (mean.shape, target.shape)
    return 0.5 * (mean.float() - target.float()).square().flatten(1).sum(1)


def bernoulli_error(logits: Tensor, target: Tensor) -> Tensor:
    """Sum of binary cross-entropies from logits; gray targets count as they are, without being made 0 or 1."""
    assert logits.shape == target.shape, (logits.shape, target.shape)
    if logits.dtype != torch.float64:
        logits, target = logits.float(), target.float()
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return losses.flatten(1).sum(1)


def mixture_channels(channels: int) -> int:
    """Parameters of a mixture of logistics: weights, a mean and a scale per channel, coefficients between channels."""
    return MIXTURE * (1 + 2 * channels + channels * (channels - 1) // 2)


def mixture_error(parameters: Tensor, target: Tensor) -> Tensor:
    """-log of a mixture of discretised logistic distributions of 8-bit values.

    Each channel's means are moved by the true values of the channels before it, by coefficients of their own.
    Source: T. Salimans et al., PixelCNN++, ICLR 2017, equations 2 and 3. The tails are given to the bins 0 and 255
    alone, so that the 256 probabilities sum to 1.
    """
    weights, means, log_scales, coefficients = _mixture(parameters, target.shape[1])
    x = 2 * target.float().unsqueeze(2) - 1  # [B, C', 1, H, W] against the mixture's [B, C', M, H, W]
    centred = x - _conditioned(means, coefficients, x)
    scale = (-log_scales).exp()  # its inverse
    above, below = scale * (centred + HALF_BIN), scale * (centred - HALF_BIN)
    mass = above.sigmoid() - below.sigmoid()
    middle = scale * centred
    # Where a bin has next to no mass, its middle's density times its width is the better number.
    density = middle - log_scales - 2 * F.softplus(middle) + math.log(2 * HALF_BIN)
    inside = torch.where(mass > 1e-5, mass.clamp(min=1e-10).log(), density)
    edges = torch.where(x < -0.999, F.logsigmoid(above), torch.where(x > 0.999, F.logsigmoid(-below), inside))
    return -torch.logsumexp(edges.sum(1) + weights.log_softmax(1), dim=1).flatten(1).sum(1)


def mixture_mean(parameters: Tensor) -> Tensor:
    """Means of the distributions weighted by the mixture, one channel after the other, each clipped to [0, 1]."""
    channels = next(c for c in (1, 2, 3) if mixture_channels(c) == parameters.shape[1])
    weights, means, _, coefficients = _mixture(parameters, channels)
    shares = weights.softmax(1)
    found: list[Tensor] = []
    for channel in range(channels):
        moved = means[:, channel] + sum(
            coefficients[:, _pair(channel, other)] * found[other].unsqueeze(1) for other in range(channel)
        )
        found.append((shares * moved).sum(1).clamp(-1, 1))
    return (torch.stack(found, 1) + 1) / 2


def _pair(channel: int, other: int) -> int:
    """Place of the coefficient by which `other`, an earlier one, moves a channel."""
    return channel * (channel - 1) // 2 + other


def _mixture(parameters: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights `[B, M, H, W]`, means, log-scales and coefficients, these `[B, C', M, H, W]` or one per pair."""
    assert parameters.shape[1] == mixture_channels(channels), (parameters.shape, channels)
    items, _, height, width = parameters.shape
    parts = parameters.float().reshape(items, -1, MIXTURE, height, width)
    pairs = channels * (channels - 1) // 2
    weights, means, log_scales, coefficients = torch.split(parts, [1, channels, channels, pairs], dim=1)
    return weights.squeeze(1), means, log_scales.clamp(min=LEAST_LOG_SCALE), coefficients.tanh()


def _conditioned(means: Tensor, coefficients: Tensor, x: Tensor) -> Tensor:
    moved = [
        means[:, channel] + sum(coefficients[:, _pair(channel, other)] * x[:, other] for other in range(channel))
        for channel in range(means.shape[1])
    ]
    return torch.stack(moved, 1)


def _same(channels: int) -> int:
    return channels


def _itself(mean: Tensor) -> Tensor:
    return mean


LIKELIHOODS: dict[Likelihood, LikelihoodEntry] = {
    "laplace": LikelihoodEntry(laplace_error, _itself, _same, math.log(2), only_mean=True),
    "gaussian": LikelihoodEntry(gaussian_error, _itself, _same, math.log(2 * math.pi) / 2, only_mean=True),
    "bernoulli": LikelihoodEntry(bernoulli_error, torch.sigmoid, _same),
    "logistic-mixture": LikelihoodEntry(mixture_error, mixture_mean, mixture_channels),
}


def crop_border(picture: Tensor, crop_px: int) -> Tensor:
    """Cut a border of so many pixels off `[..., H, W]`."""
    return picture[..., crop_px:-crop_px, crop_px:-crop_px] if crop_px else picture


def reconstruction_error(likelihood: Likelihood, restoration: Restoration, target: Tensor, crop_px: int = 0) -> Tensor:
    """`-log p(target|...)` per item `[B]`, without the likelihood's constant and a border of padding."""
    parameters = _parameters(restoration)
    return LIKELIHOODS[likelihood].error(crop_border(parameters, crop_px), crop_border(target, crop_px))


def log_likelihood(likelihood: Likelihood, restoration: Restoration, target: Tensor, crop_px: int = 0) -> Tensor:
    """`log p(target|...)` per item `[B]` in nats, without a border of padding."""
    parameters = _parameters(restoration)
    return LIKELIHOODS[likelihood].log_prob(crop_border(parameters, crop_px), crop_border(target, crop_px))


def _parameters(restoration: Restoration) -> Tensor:
    return restoration.image if restoration.parameters is None else restoration.parameters
