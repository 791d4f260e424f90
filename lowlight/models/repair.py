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
from lowlight.ops import expfam
from lowlight.ops.gaussian import clamp_log_variance, draw

PriorName = Literal["normal", "expfam", "energy"]

SIDE_PX = 28
PIXELS = SIDE_PX**2
HIDDEN = (512, 256)
PRIOR_STD = 0.01  # of a polynomial's first coefficients, or an energy's first last weights


@dataclass(frozen=True, kw_only=True)
class RepairNetConfig:
    """What a repair network is made of."""

    latent: int = 20
    variance: bool = True  # False: an autoencoder, whose z is not drawn
    prior: PriorName = "normal"  # others are learned, with objective fisher: a polynomial, or a small network's energy
    prior_order: int = 4  # of the polynomial; even ones can fall on both sides (the authors: 5, for digits 8)
    prior_hidden: int = 64  # of the network

    def __post_init__(self) -> None:
        require_sizes(self, "latent", "prior_order", "prior_hidden")


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


class PolynomialPrior(nn.Module):
    """Coefficients `[M, Z]` of a polynomial log-density, an exponential family."""

    def __init__(self, order: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.empty(order, latent))
        nn.init.normal_(self.coefficients, 0.0, PRIOR_STD, generator=generator)

    def score(self, z: Tensor, learns: bool) -> Tensor:
        """Gradient of log p(z) at z `[B, Z]`; where the prior does not learn, a constant to its weights."""
        return expfam.score(self.coefficients if learns else self.coefficients.detach(), z)


class EnergyPrior(nn.Module):
    """`log p(z) = -|z|^2 / 2 - E(z) - log Z` with a small network E, which begins near 0 and so p near N(0, I).

    E grows no faster than |z|, so that the square keeps the density proper whatever is learned.
    """

    def __init__(self, hidden: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, 1, bias=False))
        initialise(self, "kaiming", generator)
        last = self.energy[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, 0.0, PRIOR_STD, generator=generator)

    def score(self, z: Tensor, learns: bool) -> Tensor:
        """Gradient of log p(z) at z `[B, Z]`; where the prior does not learn, a constant to its weights."""
        weights = {name: each if learns else each.detach() for name, each in self.energy.named_parameters()}
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            at = z if z.requires_grad else z.detach().requires_grad_()
            energy = torch.func.functional_call(self.energy, weights, (at,)).sum()
            (slope,) = torch.autograd.grad(energy, at, create_graph=wanted)
        return -z - slope


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
        self.learned_prior: PolynomialPrior | EnergyPrior | None = None
        if config.prior == "expfam":
            self.learned_prior = PolynomialPrior(config.prior_order, config.latent, generator)
        elif config.prior == "energy":
            self.learned_prior = EnergyPrior(config.prior_hidden, config.latent, generator)

    @property
    def prior_score(self) -> Callable[..., Tensor] | None:
        """Gradient of the learned log p(z), given z `[B, Z]` and whether it learns; None for the normal prior."""
        return None if self.learned_prior is None else self.learned_prior.score

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
        learned = self.learned_prior
        if learned is None:
            return start
        return expfam.draw_by_svgd(lambda z: learned.score(z, False), start.to(next(learned.parameters())), steps=steps)
