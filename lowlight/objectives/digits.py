"""The bound that the thesis' digit networks are trained with.

Sums over pixels and latent numbers, averages over the batch. Source: O. Eriksson, Real-world Low-light Image
Enhancement Using Variational Autoencoders, Lund 2020, chapter on MNIST.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Condition, Gaussian, Loss
from lowlight.objectives.beta import posterior_input
from lowlight.objectives.elbo import absolute_error, half_squared_error
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise


class LabelledModel(Protocol):
    """The steps of a network whose prior may read labels."""

    def condition(self, frames: Tensor, base: Tensor | None = None, labels: Tensor | None = None) -> Condition:
        """The prior of z, from frames `[B, N, C, h, w]`, labels `[B]`, or neither."""
        ...

    def posterior(self, target: Tensor) -> Gaussian:
        """q(z|x)."""
        ...

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        """Mean of p(x|z,y)."""
        ...


@dataclass(frozen=True, kw_only=True)
class BoundConfig:
    """The negative evidence lower bound."""

    likelihood: Literal["gaussian", "laplace"] = "gaussian"  # of scale 1: half the squared error, or L1
    beta: float = 1.0  # weight of the divergence; 0 for an autoencoder, which has none

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ConfigError(f"beta is {self.beta}; expected at least 0")


RECONSTRUCTION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gaussian": half_squared_error,
    "laplace": absolute_error,
}


def bound(model: LabelledModel, batch: Batch, progress: float, generator: torch.Generator, config: BoundConfig) -> Loss:
    """`-log p(x|z,y) + beta KL(q(z|x) || p(z|y))` up to a constant, with one draw of z."""
    condition = model.condition(batch.frames, labels=batch.labels)
    posterior = model.posterior(posterior_input(model, batch))
    z = draw(posterior, standard_noise(posterior.mean, generator, batch.share))
    reconstruction = RECONSTRUCTION[config.likelihood](model.decode(z, condition), batch.target)
    if not config.beta:
        return Loss(reconstruction, {"reconstruction": reconstruction.detach()})
    kl = kl_divergence(posterior, condition.prior).mean()
    total = reconstruction + config.beta * kl
    return Loss(total, {"reconstruction": reconstruction.detach(), "kl": kl.detach()})
