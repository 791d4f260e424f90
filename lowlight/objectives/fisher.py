"""The Fisher autoencoder: the distance between the gradients of log-densities in place of the KL divergence.

Letters: x the picture that is wanted, x~ the picture that the encoder reads (x itself, or a damaged x where
`ModelTraits.posterior_reads` says so), y what the prior and the decoder know besides (dark frames, labels or nothing),
z = mu(x~) + sigma(x~) eps the latent, f the decoder. With q = q(z|x~) and p = p(z|y):

    L = 1/2 E_eps [ |A - B - C|^2 + D + E ]          squared norms summed over an item, mean over the batch
    A = grad_z log q       = -eps / sigma
    B = grad_z log p(z|y)  = -(z - mean) / variance  of the prior, -z for N(0, I)
    C = grad_z log p(x|z,y)                          by automatic differentiation of the decoder
    D = |x - f(z, y)|^2                              of a normal likelihood of variance 1
    E = |grad_x~ log q|^2                            at fixed z

Sources: K. Elkhalil, A. Hasan, J. Ding, S. Farsiu, V. Tarokh, Fisher Auto-Encoders, AISTATS 2021; student report
"Repairing Images with Fisher Autoencoder", equation 3. The conditional form repeats the derivation for p(x, z | y).

The gradient of L is that of its value for the eps that were drawn: in E, z is fixed while x~ is differentiated, but
not while the weights are. Everything is computed in float32 (or float64), also under autocast: A - B - C is a small
difference of large numbers, which bf16 would turn into noise.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Condition, Gaussian, Loss, RestorationModel
from lowlight.objectives.beta import (
    decoder_of,
    lacks_width,
    posterior_input,
    prior_score,
    read_condition,
    reconstruction_of,
)
from lowlight.objectives.elbo import absolute_error
from lowlight.ops.gaussian import draw, kl_divergence, standard_noise

logger = logging.getLogger(__name__)

# C is a Jacobian's product with all values of a picture, which dwarfs D at the start. After 50 steps of a small SID-net
# |A - B - C|^2 was more than ten times as large without clipping.
RAW_CLIP_NORM = 1.0

StabilityMode = Literal["partial", "total", "latent"]
Likelihood = Literal["gaussian", "bernoulli"]


@dataclass(frozen=True, kw_only=True)
class FisherConfig:
    """What the three parts are made of. The defaults are for RAW."""

    samples: int = 1  # draws of z per item
    c_likelihood: Likelihood = "gaussian"  # p(x|z,y) in C; bernoulli: the student report's, beside a normal D
    e_mode: StabilityMode = "partial"  # total: log q along the draw, as in the authors' code; latent: |A|^2
    detach_c: bool = True  # C is a constant to the weights, which saves differentiating the decoder twice
    w_fisher: float = 1.0  # weight of |A - B - C|^2
    w_recon: float = 1.0  # weight of D
    w_stab: float = 1.0  # weight of E
    warmup: float = 0.1  # fraction of the run over which w_fisher and w_stab rise from 0
    recon: Literal["mse", "l1"] = "mse"  # l1: twice the absolute error in place of D, which is no Fisher divergence
    alpha: float = 1.0  # the rest to 1 weighs half the squared error from samples of the prior
    prior_share: float = 0.2  # of the steps, in which a learned prior learns

    def __post_init__(self) -> None:
        if self.samples < 1 or min(self.w_fisher, self.w_recon, self.w_stab) < 0:
            raise ConfigError("fisher needs samples >= 1 and weights of at least 0")
        if not 0 <= self.warmup <= 1 or not 0 < self.alpha <= 1 or not 0 < self.prior_share <= 1:
            raise ConfigError("fisher needs a warmup from 0 to 1, and an alpha and a prior_share above 0 and at most 1")
        if self.recon == "l1":
            _warn_of_l1()


class Terms(NamedTuple):
    """The three parts of one draw, `[B]` each, and the decoded picture."""

    mismatch: Tensor  # |A - B - C|^2
    squared_error: Tensor  # D
    stability: Tensor  # E
    image: Tensor
    likelihood: Tensor  # log p(x|z,y) up to a constant, for the log


def fisher_terms(
    posterior: Gaussian,
    read: Tensor,
    target: Tensor,
    noise: Tensor,
    *,
    decode: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    config: FisherConfig,
) -> Terms:
    """The parts of the objective for one draw; needs grad mode.

    `posterior` is q(z|x~) of the picture `read`, which must require gradients unless `e_mode` is latent; `score` is B,
    the gradient of the prior's log-density; `decode` gives the picture, or for a Bernoulli likelihood its logits. Each
    level of a pyramid is one such call, with its own prior and residual.
    """
    sigma = (0.5 * posterior.log_variance).exp()
    z = posterior.mean + sigma * noise
    if not z.requires_grad:  # a frozen encoder
        z = z.detach().requires_grad_()
    decoded = decode(z)
    likelihood = log_likelihood(decoded, target, config.c_likelihood)
    a = -noise / sigma
    (c,) = torch.autograd.grad(likelihood.sum(), z, create_graph=not config.detach_c, retain_graph=True)
    image = decoded.sigmoid() if config.c_likelihood == "bernoulli" else decoded
    if config.e_mode == "latent":
        stability = _square_norm(a)
    else:
        stability = _square_norm(_input_score(posterior, read, noise, config.e_mode))
    error = target - image
    return Terms(_square_norm(a - score(z) - c), _square_norm(error), stability, image, likelihood.detach())


def log_likelihood(decoded: Tensor, target: Tensor, likelihood: Likelihood) -> Tensor:
    """Log p(x|z,y) up to a constant, `[B]`: normal of variance 1 around a picture, or Bernoulli from logits."""
    if likelihood == "bernoulli":
        return -F.binary_cross_entropy_with_logits(decoded, target, reduction="none").flatten(1).sum(1)
    return -0.5 * _square_norm(target - decoded)


def normal_score(prior: Gaussian) -> Callable[[Tensor], Tensor]:
    """B of a normal prior: `-(z - mean) / variance`."""
    return lambda z: -(z - prior.mean) * (-prior.log_variance).exp()


def fisher(
    model: RestorationModel, batch: Batch, progress: float, generator: torch.Generator, config: FisherConfig
) -> Loss:
    """`alpha L + (1 - alpha) 1/2 |x - f(z_p, y)|^2` with `z_p` from the prior; alpha 1 is the Fisher autoencoder.

    It may be called under `no_grad`, not under `inference_mode`. Parts: `fisher` (|A - B - C|^2), `D` (or `l1`), `E`,
    and for normal priors `kl` and `neg_elbo`, so that curves of other objectives can be compared.
    """
    _require_steps(model)
    reconstruction_of(model, "bce" if config.c_likelihood == "bernoulli" else "mse")
    wanted = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(batch.target.device.type, enabled=False):
        loss = _loss(model, batch, progress, generator, config)
    return loss if wanted else Loss(loss.total.detach(), loss.parts)


def _loss(
    model: RestorationModel, batch: Batch, progress: float, generator: torch.Generator, config: FisherConfig
) -> Loss:
    condition = read_condition(model, batch)
    read = posterior_input(model, batch).detach().requires_grad_(config.e_mode != "latent")
    posterior = model.posterior(read)
    _require_width(posterior)
    noises = [standard_noise(posterior.mean, generator, batch.share) for _ in range(config.samples)]
    decode = decoder_of(model, logits=config.c_likelihood == "bernoulli")
    score = _score_of(model, condition, generator, config)
    loss, likelihood = divergence(
        posterior,
        read,
        batch.target,
        noises,
        decode=lambda z: decode(z, condition),
        score=score,
        config=config,
        progress=progress,
    )
    total, parts = loss.total, loss.parts
    if prior_score(model) is None:
        with torch.no_grad():
            kl = kl_divergence(posterior, condition.prior).mean()
            parts |= {"kl": kl, "neg_elbo": kl - likelihood}
    if config.alpha < 1:
        z = draw(condition.prior, standard_noise(condition.prior.mean, generator, batch.share))
        error = 0.5 * _square_norm(batch.target - model.decode(z, condition)).mean()
        total = config.alpha * total + (1 - config.alpha) * error
        parts["prior_reconstruction"] = error
    return Loss(total, {name: part.detach() for name, part in parts.items()})


def divergence(
    posterior: Gaussian,
    read: Tensor,
    target: Tensor,
    noises: Sequence[Tensor],
    *,
    decode: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    config: FisherConfig,
    progress: float,
) -> tuple[Loss, Tensor]:
    """The weighted sum of the parts over some draws, its parts, and the mean of log p(x|z,y); see `fisher_terms`."""
    draws = [fisher_terms(posterior, read, target, eps, decode=decode, score=score, config=config) for eps in noises]
    mismatch, squared_error, stability = (torch.stack([each[i] for each in draws]).mean() for i in range(3))
    parts = {"fisher": mismatch, "D": squared_error, "E": stability}
    recon = squared_error
    if config.recon == "l1":
        recon = 2 * torch.stack([absolute_error(each.image, target) for each in draws]).mean()
        parts["l1"] = recon / 2
    risen = min(progress / config.warmup, 1.0) if config.warmup else 1.0
    total = 0.5 * (risen * config.w_fisher * mismatch + config.w_recon * recon + risen * config.w_stab * stability)
    return Loss(total, parts), torch.stack([each.likelihood for each in draws]).mean()


def _score_of(
    model: RestorationModel, condition: Condition, generator: torch.Generator, config: FisherConfig
) -> Callable[[Tensor], Tensor]:
    """B. A learned prior learns in some steps only; drawing which keeps a step a function of its seed."""
    learned: Any = prior_score(model)
    if learned is None:
        return normal_score(condition.prior)
    if config.alpha < 1:
        raise ConfigError("a learned prior has no samples to train on; set alpha to 1")
    learns = float(torch.rand((), generator=generator, device=generator.device)) < config.prior_share
    return functools.partial(learned, learns=learns)


def _input_score(posterior: Gaussian, read: Tensor, noise: Tensor, mode: StabilityMode) -> Tensor:
    """Gradient of log q with respect to the encoder's input, from products with the Jacobians of its two outputs.

    At fixed z it is `J_mean^T (z - mean) / variance + 1/2 J_logvar^T ((z - mean)^2 / variance - 1)`; along the draw
    it is `-1/2 J_logvar^T 1`. The factors stay in the graph, so that the weights' gradient is that of the value.
    """
    mean, log_variance = posterior
    factors = [(log_variance, torch.full_like(noise, -0.5))]
    if mode == "partial":
        factors = [(mean, noise * (-0.5 * log_variance).exp()), (log_variance, 0.5 * (noise.square() - 1))]
    known = [(output, factor) for output, factor in factors if output.requires_grad]  # a variance may be fixed
    if not known:
        return torch.zeros_like(read)
    outputs, weights = zip(*known, strict=True)
    (gradient,) = torch.autograd.grad(outputs, read, weights, create_graph=True, materialize_grads=True)
    return gradient


def _square_norm(values: Tensor) -> Tensor:
    """Sum of squares of each item, `[B]`."""
    return values.square().flatten(1).sum(1)


def _require_steps(model: object) -> None:
    """Refuse networks without one latent between an encoder and a decoder."""
    if missing := [step for step in ("condition", "posterior", "decode") if not callable(getattr(model, step, None))]:
        raise ConfigError(
            f"objective fisher cannot train {type(model).__name__}, which has no step {', '.join(missing)}: "
            "its latents depend on one another; use its own objective, or a network such as sid-net"
        )


def _require_width(posterior: Gaussian) -> None:
    if lacks_width(posterior):
        raise ConfigError(
            "objective fisher needs a posterior with a width; an autoencoder has none, use objective beta"
        )


@functools.cache
def _warn_of_l1() -> None:
    logger.warning("fisher with recon l1 is a heuristic and not a Fisher divergence")
