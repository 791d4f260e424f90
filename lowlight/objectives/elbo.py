"""The thesis' objectives: the CVAE's bound and its deterministic L1 version.

Reconstruction is summed over channels and pixels, the divergence over latent dimensions, both averaged over the
batch; the published weights (beta) only make sense with sums. Source: O. Eriksson, Real-world Low-light Image
Enhancement Using Variational Autoencoders, Lund 2020.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Loss, RestorationModel
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise


@dataclass(frozen=True, kw_only=True)
class CvaeConfig:
    """The negative evidence lower bound with a Laplace likelihood of scale 1."""

    beta: float = 2.0  # weight of the divergence
    samples: int = 1  # draws of z per item, decoded separately and averaged

    def __post_init__(self) -> None:
        if self.samples < 1 or self.beta < 0:
            raise ConfigError(f"cvae needs samples >= 1 and beta >= 0, got {self.samples} and {self.beta}")


@dataclass(frozen=True, kw_only=True)
class L1Config:
    """No posterior and no noise: the decoder sees the prior's mean."""


def absolute_error(image: Tensor, target: Tensor) -> Tensor:
    """Absolute differences of `[B, C', H, W]`, summed per item and averaged over the batch.

    It is -log Laplace(target; image, 1) - N log 2 for items of N values.
    """
    assert image.shape == target.shape, (image.shape, target.shape)  # broadcasting would go unnoticed
    return (image.float() - target.float()).abs().flatten(1).sum(1).mean()


def cvae(
    model: RestorationModel,
    batch: Batch,
    progress: float,
    generator: torch.Generator,
    config: CvaeConfig,
) -> Loss:
    """`mean over samples of L1(x, D(z_q, y)) + beta KL(q(z|x) || p(z|y))` (thesis, eq. for L_CVAE)."""
    condition = model.condition(batch.frames, batch.base)
    posterior = model.posterior(batch.target)
    draws = []
    for _ in range(config.samples):
        z = draw(posterior, standard_noise(posterior.mean, generator))
        draws.append(absolute_error(model.decode(z, condition), batch.target))
    reconstruction = torch.stack(draws).mean()
    kl = kl_divergence(posterior, condition.prior).mean()
    total = reconstruction + config.beta * kl
    return Loss(total, {"reconstruction": reconstruction.detach(), "kl": kl.detach()})


def l1(model: RestorationModel, batch: Batch, progress: float, generator: torch.Generator, config: L1Config) -> Loss:
    """`L1(x, D(mean of p(z|y), y))`: the zero-variance version of sampling from the prior."""
    image = model.restore(batch.frames, batch.base).image
    total = absolute_error(image, batch.target)
    return Loss(total, {"reconstruction": total.detach()})
