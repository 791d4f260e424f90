"""The objective of the Laplacian pyramid of conditional VAEs: one bound a level, trained one after another or at once.

`L_k = -log p(h_k | z_k ... z_K) + lambda_k KL(q_k || p(z_k))`, summed over pixels and latent numbers, averaged over
the batch. Source: G. Dorta et al., Laplacian Pyramid of Conditional Variational Autoencoders, CVMP 2017; it trains
greedily, coarsest level first, and names joint training as an extension.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Loss, ModelTraits, Share
from lowlight.objectives.elbo import absolute_error, half_squared_error
from lowlight.objectives.fisher import FisherConfig, divergence, normal_score
from lowlight.ops.gaussian import kl_divergence, standard_noise
from lowlight.ops.pyramid import PyramidLevel

RAW_WEIGHT, IMAGE_WEIGHT = 2.0, 1.0  # lambda where none is given: that of SID-net, and the bound itself


@runtime_checkable
class PyramidModel(Protocol):
    """A network of levels that can be trained one at a time."""

    traits: ModelTraits

    def terms(
        self,
        frames: Tensor,
        target: Tensor,
        generator: torch.Generator | None,
        level: int | None = None,
        share: Share | None = None,
        differentiate_bands: bool = False,
    ) -> tuple[PyramidLevel, ...]:
        """What one level says, the coarser ones without gradients; all levels, coarsest first, for None."""
        ...


@dataclass(frozen=True, kw_only=True)
class LapCvaeObjectiveConfig:
    """Which levels are trained when, and how the divergences are weighted."""

    schedule: Literal["greedy", "joint"] = "greedy"
    weights: tuple[float, ...] = ()  # lambda_k, finest first, or one for all; none: 1, and 2 on RAW
    shares: tuple[float, ...] = ()  # of a greedy run for each level, coarsest first; none: equal
    fisher: FisherConfig | None = None  # a section, may be empty: the Fisher divergence in place of each level's bound

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.weights):
            raise ConfigError(f"weights are {self.weights}; expected numbers of at least 0")
        if self.shares and (min(self.shares) < 0 or sum(self.shares) <= 0):
            raise ConfigError(f"shares are {self.shares}; expected numbers of at least 0 that are not all 0")
        if self.fisher and self.weights:
            raise ConfigError(
                "weights are those of the bounds' divergences, which fisher replaces; leave out one of them"
            )
        if self.fisher and (self.fisher.c_likelihood != "gaussian" or self.fisher.alpha < 1):
            raise ConfigError('the Fisher divergence of bands takes c_likelihood = "gaussian" and alpha = 1 only')


def lapcvae(
    model: PyramidModel, batch: Batch, progress: float, generator: torch.Generator, config: LapCvaeObjectiveConfig
) -> Loss:
    """The bound of the level whose turn it is, or of all levels; only these get gradients.

    With `fisher` each level's Fisher divergence stands in its place: x is the band h_k, which the low-frequency
    picture and all coarser latents condition, and the prior's score is that of the level's own prior.
    """
    levels = len(model.traits.latents)
    active = None if config.schedule == "joint" else active_level(progress, levels, config.shares)
    if config.fisher:
        loss = _fisher(model, batch, progress, generator, config, active, config.fisher)
        total, parts = loss.total, loss.parts
    else:
        weights = _weights(config, model.traits)
        total, parts = torch.zeros((), device=batch.target.device), {}
        for term in model.terms(batch.frames, batch.target, generator, active, share=batch.share):
            reconstruction = negative_log_likelihood(term, model.traits.likelihood)
            assert term.latent.posterior is not None
            kl = kl_divergence(term.latent.posterior, term.latent.prior).mean()
            total = total + reconstruction + weights[term.level - 1] * kl
            name = "" if active else f"_{term.level}"
            parts |= {f"reconstruction{name}": reconstruction.detach(), f"kl{name}": kl.detach()}
    if active:
        parts["level"] = torch.tensor(float(active), device=total.device)
    return Loss(total, parts)


def _fisher(
    model: PyramidModel,
    batch: Batch,
    progress: float,
    generator: torch.Generator,
    config: LapCvaeObjectiveConfig,
    active: int | None,
    fisher: FisherConfig,
) -> Loss:
    """The sum of the levels' Fisher divergences; the warm-up of a greedy run starts anew with each level."""
    if active:
        progress = level_progress(progress, len(model.traits.latents), config.shares)
    wanted = torch.is_grad_enabled()
    parts: dict[str, Tensor] = {}
    total = torch.zeros((), device=batch.target.device)
    with torch.enable_grad(), torch.autocast(batch.target.device.type, enabled=False):
        terms = model.terms(batch.frames, batch.target, generator, active, share=batch.share, differentiate_bands=True)
        for term in terms:
            posterior = term.latent.posterior
            assert posterior is not None and term.read is not None and term.decode is not None
            noises = [standard_noise(posterior.mean, generator, batch.share) for _ in range(fisher.samples)]
            loss, likelihood = divergence(
                posterior,
                term.read,
                term.target,
                noises,
                decode=term.decode,
                score=normal_score(term.latent.prior),
                config=fisher,
                progress=progress,
            )
            total = total + loss.total
            kl = kl_divergence(posterior, term.latent.prior).mean().detach()
            name = "" if active else f"_{term.level}"
            found = {**loss.parts, "kl": kl, "neg_elbo": kl - likelihood}
            parts |= {f"{part}{name}": value.detach() for part, value in found.items()}
    return Loss(total if wanted else total.detach(), parts)


def active_level(progress: float, levels: int, shares: tuple[float, ...] = ()) -> int:
    """The level that a greedy run trains at `progress` in [0, 1]: from `levels` (coarsest) down to 1."""
    return levels - _turn(progress, levels, shares)[0]


def level_progress(progress: float, levels: int, shares: tuple[float, ...] = ()) -> float:
    """How far the level that is being trained has come, in [0, 1]: for learning rates that fall in each level."""
    return _turn(progress, levels, shares)[1]


def negative_log_likelihood(term: PyramidLevel, likelihood: str) -> Tensor:
    """-log p of a band, summed per item, averaged over the batch; of a fixed width without its constant."""
    if likelihood == "laplace":
        return absolute_error(term.mean, term.target)
    if term.log_variance is None:
        return half_squared_error(term.mean, term.target)
    return gaussian_nll(term.mean, term.log_variance, term.target)


def gaussian_nll(mean: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
    """-log Normal(target; mean, exp(log_variance)) of `[B, C', n, n]`, summed per item, averaged over the batch.

    For one width a picture the best variance is the mean squared error.
    """
    assert mean.shape == target.shape, (mean.shape, target.shape)  # broadcasting would go unnoticed
    log_variance = log_variance.float().expand_as(mean)
    squares = (mean.float() - target.float()).square() * (-log_variance).exp()
    return 0.5 * (squares + log_variance + math.log(2 * math.pi)).flatten(1).sum(1).mean()


def _weights(config: LapCvaeObjectiveConfig, traits: ModelTraits) -> tuple[float, ...]:
    levels = len(traits.latents)
    weights = config.weights or (RAW_WEIGHT if traits.kind == "raw" else IMAGE_WEIGHT,)
    if len(weights) == 1:
        return weights * levels
    if len(weights) != levels:
        raise ConfigError(f"there are {len(weights)} weights for {levels} levels; give one for each, or one for all")
    return weights


def _turn(progress: float, levels: int, shares: tuple[float, ...]) -> tuple[int, float]:
    """Whose turn it is, counted from 0 at the coarsest level, and how far that level has come."""
    if shares and len(shares) != levels:
        raise ConfigError(f"there are {len(shares)} shares for {levels} levels; give one for each, coarsest first")
    shares = shares or (1.0,) * levels
    done, whole = 0.0, sum(shares)
    for turn, share in enumerate(shares):
        if share and (progress * whole < done + share or not any(shares[turn + 1 :])):
            return turn, min((progress * whole - done) / share, 1.0)
        done += share
    raise AssertionError("shares that are not all 0 have a last one")
