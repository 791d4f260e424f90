"""The bound of a beta-VAE, for networks that encode the bright picture and for those that encode the damaged one.

`-E_q log p(x|z,y) + beta KL(q || p(z|y))`, summed over pixels and latent numbers, averaged over the batch. beta 1 is
the VAE, beta 0 an autoencoder. Source: I. Higgins et al., beta-VAE, ICLR 2017; the repair of damaged pictures with it
follows the student report "Repairing Images with Fisher Autoencoder", equation 4 (which maximises the same).

What q(z|.) reads is a promise of the network (`ModelTraits.posterior_reads`), not an option here: a network that is
used on damaged pictures and trained on clean ones would learn nothing of use, and nobody would be told.

`bound` is the same with one draw, a stated likelihood and beta 1 by default: the objective of the digit networks in
O. Eriksson, Real-world Low-light Image Enhancement Using Variational Autoencoders, Lund 2020, chapter on MNIST.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Condition, Gaussian, Loss, RestorationModel
from lowlight.objectives.elbo import absolute_error, half_squared_error
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise
from lowlight.ops.likelihoods import bernoulli_error

Reconstruction = Literal["model", "l1", "mse", "bce"]


@dataclass(frozen=True, kw_only=True)
class BetaConfig:
    """The negative evidence lower bound with a weighted divergence."""

    beta: float = 4.0  # weight of the divergence; 1: the VAE, 0: no divergence, as an autoencoder has none
    samples: int = 1  # draws of z per item, decoded separately and averaged
    reconstruction: Reconstruction = "model"  # l1, mse (times 1/2), bce, or what the network's likelihood says

    def __post_init__(self) -> None:
        if self.samples < 1 or self.beta < 0:
            raise ConfigError(f"beta needs samples >= 1 and beta >= 0, got {self.samples} and {self.beta}")


@dataclass(frozen=True, kw_only=True)
class BoundConfig:
    """The negative evidence lower bound of the thesis' digit networks."""

    likelihood: Literal["gaussian", "laplace"] = "gaussian"  # of scale 1: half the squared error, or L1
    beta: float = 1.0  # weight of the divergence; 0 for an autoencoder, which has none

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ConfigError(f"beta is {self.beta}; expected at least 0")


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """`-log Bernoulli(target; sigmoid(logits))`, summed per item and averaged over the batch.

    From logits, because a pixel whose probability has rounded to 0 or 1 could never be pulled back.
    """
    return bernoulli_error(logits, target).mean()


ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": absolute_error,
    "mse": half_squared_error,
    "bce": cross_entropy,
}
OF_LIKELIHOOD: dict[str, Reconstruction] = {"laplace": "l1", "gaussian": "mse", "bernoulli": "bce"}


def beta(
    model: RestorationModel, batch: Batch, progress: float, generator: torch.Generator, config: BetaConfig
) -> Loss:
    """`-log p(x|z,y) + beta KL(q(z|.) || p(z|y))` up to a constant.

    Parts: `reconstruction`, `kl`, and `neg_elbo`, which is the sum of both whatever beta is.
    """
    if prior_score(model) is not None:
        raise ConfigError(
            "the divergence from a learned prior cannot be computed; "
            "train this network with objective fisher, or give it the normal prior"
        )
    name = reconstruction_of(model, config.reconstruction)
    error, decode = ERRORS[name], decoder_of(model, logits=name == "bce")
    condition = read_condition(model, batch)
    posterior = model.posterior(posterior_input(model, batch))
    draws = []
    for _ in range(config.samples):
        z = draw(posterior, standard_noise(posterior.mean, generator, batch.share))
        draws.append(error(decode(z, condition), batch.target))
    reconstruction = torch.stack(draws).mean()
    if not config.beta:
        return Loss(reconstruction, {"reconstruction": reconstruction.detach()})
    if lacks_width(posterior):
        raise ConfigError("an autoencoder's posterior has no width, so its divergence is infinite; set beta to 0")
    kl = kl_divergence(posterior, condition.prior).mean()
    parts = {"reconstruction": reconstruction, "kl": kl, "neg_elbo": reconstruction + kl}
    return Loss(reconstruction + config.beta * kl, {name: part.detach() for name, part in parts.items()})


def bound(
    model: RestorationModel, batch: Batch, progress: float, generator: torch.Generator, config: BoundConfig
) -> Loss:
    """`-log p(x|z,y) + beta KL(q(z|x) || p(z|y))` up to a constant, with one draw of z; parts are those of `beta`."""
    return beta(
        model, batch, progress, generator, BetaConfig(beta=config.beta, reconstruction=OF_LIKELIHOOD[config.likelihood])
    )


def lacks_width(posterior: Gaussian) -> bool:
    """Whether a posterior is an autoencoder's, a point."""
    log_variance = posterior.log_variance
    # Looked at only where it is a constant, so that nothing waits for the device elsewhere.
    return not log_variance.requires_grad and bool(log_variance.isneginf().any())


def posterior_input(model: Any, batch: Batch) -> Tensor:
    """What the network's q(z|.) reads: the target `[B, C', H, W]`, or of networks that repair it the first frame."""
    return batch.frames[:, 0] if model.traits.posterior_reads == "frames" else batch.target


def read_condition(model: Any, batch: Batch) -> Condition:
    """p(z|y) of a batch; the priors of networks for finished pictures may depend on labels too."""
    if model.traits.kind == "image":
        condition: Condition = model.condition(batch.frames, batch.base, labels=batch.labels)
    else:
        condition = model.condition(batch.frames, batch.base)
    return condition


def decoder_of(model: Any, *, logits: bool) -> Callable[[Tensor, Condition], Tensor]:
    """The step that gives the picture, or the logits of its pixels."""
    step: Callable[[Tensor, Condition], Tensor] = model.logits if logits else model.decode
    return step


def prior_score(model: Any) -> Callable[[Tensor], Tensor] | None:
    """Gradient of log p(z) of a network whose prior is not normal, None for the others."""
    score: Callable[[Tensor], Tensor] | None = getattr(model, "prior_score", None)
    return score


def reconstruction_of(model: RestorationModel, wanted: Reconstruction) -> str:
    """Which error is meant; cross-entropy is refused where the network's pixels have no logits."""
    likelihood = model.traits.likelihood
    name = OF_LIKELIHOOD.get(likelihood) if wanted == "model" else wanted
    if name is None:
        raise ConfigError(f"this network has a {likelihood} likelihood, which objective beta lacks; set reconstruction")
    if name == "bce" and not callable(getattr(model, "logits", None)):
        raise ConfigError(
            f"cross-entropy needs the logits of pixels, and this network ({likelihood}) has none; "
            "use mse, or gaussian where a likelihood is asked for"
        )
    return name
