"""The thesis' objectives: the CVAE's bound, its mixture with samples of the prior, and the deterministic L1 version.

Reconstruction is summed over channels and pixels, the divergence over latent dimensions, both averaged over the
batch; the published weights (beta) only make sense with sums. Source: O. Eriksson, Real-world Low-light Image
Enhancement Using Variational Autoencoders, Lund 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Condition, Loss, RestorationModel
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise
from lowlight.ops.likelihoods import gaussian_error, laplace_error

Reconstruction = Literal["l1", "mse"]


@dataclass(frozen=True, kw_only=True)
class CvaeConfig:
    """The negative evidence lower bound; `l1` is a Laplace likelihood of scale 1, `mse` a normal one of variance 1."""

    beta: float = 2.0  # weight of the divergence
    samples: int = 1  # draws of z per item, decoded separately and averaged
    reconstruction: Reconstruction = "l1"

    def __post_init__(self) -> None:
        if self.samples < 1 or self.beta < 0:
            raise ConfigError(f"cvae needs samples >= 1 and beta >= 0, got {self.samples} and {self.beta}")


@dataclass(frozen=True, kw_only=True)
class HybridConfig(CvaeConfig):
    """The CVAE's bound and the reconstruction from a sample of the prior, weighted."""

    alpha: float = 0.9  # weight of the CVAE's bound; 1: the bound alone, 0: samples of the prior alone

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"hybrid needs an alpha from 0 (prior alone) to 1 (cvae alone), got {self.alpha}")
        if self.alpha == 0 and self.samples > 1:
            raise ConfigError(
                f"hybrid with alpha 0 leaves the posterior out, so its {self.samples} samples cannot be drawn; "
                "set samples to 1, or alpha above 0"
            )

    @property
    def uses_posterior(self) -> bool:
        """Whether the bound has any weight."""
        return self.alpha > 0


@dataclass(frozen=True, kw_only=True)
class L1Config:
    """No posterior and no noise: the decoder sees the prior's mean."""

    scales: int = 0  # also compare means over blocks of 2, 4 ... 2^scales pixels, each scale with the same weight

    def __post_init__(self) -> None:
        if not 0 <= self.scales <= 8:
            raise ConfigError(f"l1 compares 0 to 8 scales besides the pixels, got {self.scales}")


def absolute_error(image: Tensor, target: Tensor) -> Tensor:
    """Absolute differences of `[B, C', H, W]`, summed per item and averaged over the batch.

    It is -log Laplace(target; image, 1) - N log 2 for items of N values.
    """
    return laplace_error(image, target).mean()


def absolute_error_of_scales(image: Tensor, target: Tensor, scales: int) -> Tensor:
    """`absolute_error`, averaged over the pictures and their 2x2, 4x4 ... block means, each summed as if at full size.

    Noise that is left hides the small errors of large areas from the plain sum: a blotch of colour weighs more here.
    """
    difference = image.float() - target.float()
    total = absolute_error(image, target)
    for scale in range(1, scales + 1):
        difference = F.avg_pool2d(difference, 2)
        total = total + 4**scale * difference.abs().flatten(1).sum(1).mean()
    return total / (scales + 1)


def half_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Half the squared differences of `[B, C', H, W]`, summed per item and averaged over the batch.

    It is -log Normal(target; image, 1) - N/2 log(2 pi) for items of N values.
    """
    return gaussian_error(image, target).mean()


RECONSTRUCTIONS: dict[Reconstruction, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": absolute_error,
    "mse": half_squared_error,
}


def cvae(
    model: RestorationModel,
    batch: Batch,
    progress: float,
    generator: torch.Generator,
    config: CvaeConfig,
) -> Loss:
    """`mean over samples of L1(x, D(z_q, y)) + beta KL(q(z|x) || p(z|y))` (thesis, eq. for L_CVAE)."""
    return _bound(model, model.condition(batch.frames, batch.base), batch, generator, config)


def hybrid(
    model: RestorationModel,
    batch: Batch,
    progress: float,
    generator: torch.Generator,
    config: HybridConfig,
) -> Loss:
    """`alpha L_CVAE + (1 - alpha) L1(x, D(z_p, y))` with `z_p ~ N(mean of p(z|y), I)` (thesis, eq. 15).

    What has no weight is not computed: alpha 1 is `cvae`, alpha 0 needs no posterior.
    """
    condition = model.condition(batch.frames, batch.base)
    total = torch.zeros((), device=batch.target.device)
    parts: dict[str, Tensor] = {}
    if config.alpha > 0:
        bound = _bound(model, condition, batch, generator, config)
        total, parts = config.alpha * bound.total, bound.parts
    if config.alpha < 1:
        z = draw(condition.prior, standard_noise(condition.prior.mean, generator, batch.share))
        error = RECONSTRUCTIONS[config.reconstruction](model.decode(z, condition), batch.target)
        total = total + (1 - config.alpha) * error
        parts = {**parts, "prior_reconstruction": error.detach()}
    return Loss(total, parts)


def l1(model: RestorationModel, batch: Batch, progress: float, generator: torch.Generator, config: L1Config) -> Loss:
    """`L1(x, D(mean of p(z|y), y))`: the zero-variance version of sampling from the prior.

    The log's `reconstruction` is of the pixels alone, whatever else is compared.
    """
    image = model.restore(batch.frames, batch.base).image
    error = absolute_error(image, batch.target)
    if not config.scales:
        return Loss(error, {"reconstruction": error.detach()})
    total = absolute_error_of_scales(image, batch.target, config.scales)
    return Loss(total, {"reconstruction": error.detach()})


def _bound(
    model: RestorationModel, condition: Condition, batch: Batch, generator: torch.Generator, config: CvaeConfig
) -> Loss:
    posterior = model.posterior(batch.target)
    draws = []
    for _ in range(config.samples):
        z = draw(posterior, standard_noise(posterior.mean, generator, batch.share))
        draws.append(RECONSTRUCTIONS[config.reconstruction](model.decode(z, condition), batch.target))
    reconstruction = torch.stack(draws).mean()
    kl = kl_divergence(posterior, condition.prior).mean()
    total = reconstruction + config.beta * kl
    return Loss(total, {"reconstruction": reconstruction.detach(), "kl": kl.detach()})
