"""The small network that repairs damaged digits: it encodes the damaged picture and decodes a clean one.

784 - 512 - 256 (ReLU) to mean and log-variance of 20 latent numbers, and back to 784 probabilities: 1 082 680
parameters. Source: the network of K. Elkhalil et al., Fisher Auto-Encoders, AISTATS 2021, for MNIST; the student
report "Repairing Images with Fisher Autoencoder" leaves its own open. `x~` is the damaged picture, `x` the clean one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lowlight.core.restoration import Condition, Gaussian, Latent, LatentShape, ModelTraits, Noise, Restoration
from lowlight.models.blocks import initialise, unit_gaussian
from lowlight.models.options import require_sizes
from lowlight.ops.expfam import draw_by_svgd, score
from lowlight.ops.gaussian import clamp_log_variance, draw

SIDE_PX = 28
PIXELS = SIDE_PX**2
HIDDEN = (512, 256)
PRIOR_STD = 0.01  # of an exponential-family prior's first coefficients


@dataclass(frozen=True, kw_only=True)
class RepairNetConfig:
    """What a repair network is made of."""

    latent: int = 20
    variance: bool = True  # False: an autoencoder, whose z is not drawn
    prior: Literal["normal", "expfam"] = "normal"  # expfam: a learned polynomial, for objective fisher
    prior_order: int = 4  # of that polynomial; even ones can fall on both sides (the authors: 5, for digits 8)

    def __post_init__(self) -> None:
        require_sizes(self, "latent", "prior_order")


def _layers(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them and after the last."""
    return nn.Sequential(*(part for i, o in pairwise(widths) for part in (nn.Linear(i, o), nn.ReLU())))


class Encoder(nn.Module):
    """x~ to mean and log-variance."""

    def __init__(self, latent: int, heads: int) -> None:
        super().__init__()
        self.hidden = _layers(PIXELS, *HIDDEN)
        self.heads = nn.ModuleList(nn.Linear(HIDDEN[-1], latent) for _ in range(heads))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Head outputs `[B, Z]` of pictures `[B, 1, 28, 28]`."""
        features = self.hidden(x.flatten(1))
        return [head(features) for head in self.heads]


class LearnedPrior(nn.Module):
    """Coefficients `[M, Z]` of a polynomial log-density."""

    def __init__(self, order: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.empty(order, latent))
        nn.init.normal_(self.coefficients, 0.0, PRIOR_STD, generator=generator)


class RepairNet(nn.Module):
    """The network with the named steps of every network here; its posterior reads the damaged frame."""

    def __init__(self, config: RepairNetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.traits = ModelTraits(
            kind="image",
            in_channels=1,
            out_channels=1,
            likelihood="bernoulli",
            posterior_reads="frames",
            latents=(LatentShape(config.latent),),
            tile=SIDE_PX,
        )
        # Not called `encoder`: it is needed to repair a picture, and so belongs into every weights file.
        self.recognition = Encoder(config.latent, heads=2 if config.variance else 1)
        self.decoder = nn.Sequential(_layers(config.latent, *reversed(HIDDEN)), nn.Linear(HIDDEN[0], PIXELS))
        initialise(self, "kaiming", generator)
        if config.prior == "expfam":
            self.learned_prior = LearnedPrior(config.prior_order, config.latent, generator)

    @property
    def prior_score(self) -> Callable[..., Tensor] | None:
        """Gradient of the learned log p(z), a function of z `[B, Z]`; None for the normal prior."""
        return self._prior_score if self.config.prior == "expfam" else None

    def condition(self, frames: Tensor, base: Tensor | None = None, labels: Tensor | None = None) -> Condition:
        """The prior N(0, I), one for each of the frames `[B, N, 1, 28, 28]`, and no skips."""
        return Condition(unit_gaussian(frames.new_zeros(len(frames), self.config.latent)), ())

    def posterior(self, target: Tensor) -> Gaussian:
        """q(z|x~) of damaged pictures `[B, 1, 28, 28]`, not clipped; an autoencoder's has no width."""
        mean, *rest = self.recognition(target)
        if not rest:
            return Gaussian(mean, torch.full_like(mean, -torch.inf))
        return Gaussian(mean, clamp_log_variance(rest[0]))

    def decode(self, z: Tensor, condition: Condition) -> Tensor:
        """Mean of p(x|z), `[B, 1, 28, 28]`, in [0, 1]."""
        return self.logits(z, condition).sigmoid()

    def logits(self, z: Tensor, condition: Condition) -> Tensor:
        """The same before the sigmoid; a Bernoulli likelihood is computed from these."""
        logits: Tensor = self.decoder(z)
        return logits.view(-1, 1, SIDE_PX, SIDE_PX)

    def restore(
        self,
        frames: Tensor,
        base: Tensor | None = None,
        noise: Noise | None = None,
        labels: Tensor | None = None,
    ) -> Restoration:
        """Repair frames `[B, 1, 1, 28, 28]`: z is the mean of q(z|x~), plus one `noise [B, Z]` where it is given."""
        condition = self.condition(frames)
        posterior = self.posterior(frames[:, 0])
        z = posterior.mean if noise is None else draw(posterior, noise[0])
        return Restoration(self.decode(z, condition), (Latent(z, condition.prior, posterior),))

    def draw_prior(self, count: int, generator: torch.Generator, *, steps: int = 2000) -> Tensor:
        """Draws `[count, Z]` of the prior; of a learned one at least 2, by Stein variational gradient descent."""
        noise = torch.rand if self.config.prior == "expfam" else torch.randn
        start = noise(count, self.config.latent, generator=generator)
        if self.config.prior == "normal":
            return start
        return draw_by_svgd(self._prior_score, start.to(self.learned_prior.coefficients), steps=steps)

    def _prior_score(self, z: Tensor, *, learns: bool = True) -> Tensor:
        # The prior is a constant to the weights where it does not learn.
        coefficients = self.learned_prior.coefficients
        return score(coefficients if learns else coefficients.detach(), z)
