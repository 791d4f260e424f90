"""The bound that FusionVAE and its baselines are trained with.

Reconstruction and divergences are summed over an item and averaged over the batch. Source: F. Duffhauss et al.,
FusionVAE, ECCV 2022, equation 8, whose warm-up and balancing of the divergences follow A. Vahdat and J. Kautz, NVAE,
NeurIPS 2020, and A. Vahdat et al., DVAE++, ICML 2018.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Gaussian, HierarchicalModel, LatentShape, Loss, PenalisedModel
from lowlight.ops.gaussian import kl_divergence
from lowlight.ops.likelihoods import reconstruction_error

LEAST_BETA = 1e-4


@dataclass(frozen=True, kw_only=True)
class FusionObjectiveConfig:
    """The negative bound with a warm-up of its divergences."""

    kl_anneal: float = 0.3  # share of training over which beta rises from next to nothing
    beta: float = 1.0  # weight of the divergences after that; 1 for the bound
    balance: bool = True  # while beta rises, weigh the groups so that all are used
    spectral_weight: float = 0.0  # of the penalty on the network's weights (paper presets: 0.01, or 0.1)

    def __post_init__(self) -> None:
        if not 0 <= self.kl_anneal <= 1 or self.beta < 0 or self.spectral_weight < 0:
            raise ConfigError(
                f"fusion needs a kl_anneal from 0 to 1, beta and spectral_weight of at least 0, got {self.kl_anneal}, "
                f"{self.beta} and {self.spectral_weight}"
            )


def warm_up(progress: float | Tensor, kl_anneal: float) -> Tensor:
    """Factor of the divergences at `progress` in [0, 1] of the training: linear from 1e-4 to 1; a scalar like it."""
    progress = torch.as_tensor(progress, dtype=torch.float32)
    if not kl_anneal:
        return torch.ones_like(progress)
    return ((progress - 1e-4) / kl_anneal).clamp(LEAST_BETA, 1.0)


def balance_weights(divergences: Tensor, shapes: tuple[LatentShape, ...]) -> Tensor:
    """Weights of the latent groups from their divergences `[B, L]`, coarsest first; `[L]`, mean 1, no gradient.

    Groups that carry more get more, in proportion to their divergence, so that none is given up; groups of finer
    scales, and of scales with fewer groups, get less for their size.
    """
    strides = [shape.stride or 1 for shape in shapes]
    sizes = [(max(strides) / stride) ** 2 / strides.count(stride) for stride in strides]
    carried = divergences.detach().float().abs().mean(0) + 0.01
    # Group by group: a tensor of sizes would have to be sent to the device in every step.
    weights = torch.stack([each * (min(sizes) / size) for each, size in zip(carried, sizes, strict=True)])
    weights = weights * carried.sum()
    return weights / weights.mean()


def fusion(
    model: HierarchicalModel,
    batch: Batch,
    progress: float | Tensor,
    generator: torch.Generator,
    config: FusionObjectiveConfig,
) -> Loss:
    """`-log p(y|x,z) + beta sum_l alpha_l KL(q_l || p_l)` without the likelihood's constant, with one draw of z.

    Networks without latents have the first term alone. The last part of the sum is `spectral_weight` times the
    penalty on the network's weights.
    """
    said = model.reconstruct(batch.frames, batch.target, generator, batch.base, batch.share)
    error = reconstruction_error(model.traits.likelihood, said, batch.target, model.traits.crop_px).mean()
    total, parts = error, {"reconstruction": error.detach()}
    if said.latents:
        divergences = torch.stack([_divergence(latent.posterior, latent.prior) for latent in said.latents], 1)
        factor = warm_up(progress, config.kl_anneal).to(error.device)
        weights = torch.ones_like(divergences[0])
        if config.balance:
            weights = torch.where(factor < 1, balance_weights(divergences, model.traits.latents), weights)
        beta = config.beta * factor
        total = total + beta * (weights * divergences).sum(1).mean()
        # The divergence is logged as it is, so that error and kl add up to the bound at any time.
        parts |= {"kl": divergences.detach().sum(1).mean(), "beta": beta}
    if config.spectral_weight:
        if not isinstance(model, PenalisedModel):
            raise ConfigError("this network has no penalty on its weights; set spectral_weight to 0")
        penalty = model.penalty()
        total = total + config.spectral_weight * penalty
        parts["penalty"] = penalty.detach()
    return Loss(total, parts)


def _divergence(posterior: Gaussian | None, prior: Gaussian) -> Tensor:
    assert posterior is not None, "a training path has posteriors"
    return kl_divergence(posterior, prior)
