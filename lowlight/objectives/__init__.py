"""Every objective under the name users type. To add one: write its function, add its entry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lowlight.core.config import from_dict
from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, HierarchicalModel, Loss, PenalisedModel, RestorationModel
from lowlight.objectives.beta import BetaConfig, BoundConfig, beta, bound
from lowlight.objectives.elbo import CvaeConfig, HybridConfig, L1Config, cvae, hybrid, l1
from lowlight.objectives.fisher import RAW_CLIP_NORM, FisherConfig, fisher
from lowlight.objectives.fusion import FusionObjectiveConfig, fusion
from lowlight.objectives.lapcvae import LapCvaeObjectiveConfig, PyramidModel, lapcvae

Model = RestorationModel | HierarchicalModel
Kind = Literal["raw", "image"]


@dataclass(frozen=True)
class Entry:
    """An objective: its configuration class, its function, whether it trains the posterior encoder, and for whom it is.

    A configuration that decides about the encoder itself has a property `uses_posterior`. `kinds` are the kinds of
    networks (`ModelTraits.kind`) and `protocol` the steps it can work with.
    """

    config: type[Any]
    function: Callable[..., Loss]
    uses_posterior: bool
    summary: str
    kinds: tuple[Kind, ...] = ("raw",)
    protocol: type[Any] = RestorationModel
    recordable: bool = False  # nothing it does waits for the device, and the progress may be a tensor there

    def fits(self, model: Any) -> bool:
        """Whether it can train a network."""
        return isinstance(model, self.protocol) and model.traits.kind in self.kinds


OBJECTIVES: dict[str, Entry] = {
    "cvae": Entry(CvaeConfig, cvae, True, "the conditional VAE's bound: L1 + beta KL"),
    "hybrid": Entry(HybridConfig, hybrid, True, "alpha times cvae, the rest L1 from a sample of the prior"),
    "l1": Entry(L1Config, l1, False, "L1 from the prior's mean, no encoder", recordable=True),
    "bound": Entry(BoundConfig, bound, True, "the bound of the thesis' digit networks", kinds=("image",)),
    "beta": Entry(BetaConfig, beta, True, "the beta-VAE's bound", kinds=("raw", "image")),
    "fusion": Entry(
        FusionObjectiveConfig,
        fusion,
        True,
        "FusionVAE's bound with its warm-up",
        kinds=("raw", "image"),
        protocol=PenalisedModel,
        recordable=True,
    ),
    "lapcvae": Entry(
        LapCvaeObjectiveConfig,
        lapcvae,
        True,
        "the pyramid's bounds or Fisher divergences, level by level",
        kinds=("raw", "image"),
        protocol=PyramidModel,
    ),
    "fisher": Entry(FisherConfig, fisher, True, "the Fisher autoencoder's divergence", kinds=("raw", "image")),
}


@dataclass(frozen=True)
class Objective:
    """An objective with its configuration bound: call it with a model and a batch."""

    name: str
    config: Any

    @property
    def uses_posterior(self) -> bool:
        """Whether the posterior encoder takes part in training."""
        return bool(getattr(self.config, "uses_posterior", OBJECTIVES[self.name].uses_posterior))

    @property
    def recordable(self) -> bool:
        """Whether a step can be recorded as a CUDA graph; the progress is a scalar tensor on the device then."""
        return OBJECTIVES[self.name].recordable

    @property
    def raw_clip_norm(self) -> float:
        """The largest gradient norm of networks on RAW where a run names none; 0: no clipping."""
        divergence = self.config if isinstance(self.config, FisherConfig) else getattr(self.config, "fisher", None)
        return RAW_CLIP_NORM if divergence else 0.0

    def __call__(self, model: Model, batch: Batch, progress: float | Tensor, generator: torch.Generator) -> Loss:
        """Give the loss of one batch; `progress` in [0, 1] says how far training has come."""
        return OBJECTIVES[self.name].function(model, batch, progress, generator, self.config)


def build_objective(name: str, options: dict[str, Any] | None = None) -> Objective:
    """Bind the objective called `name` to `options`; unknown names and keys are refused."""
    if name not in OBJECTIVES:
        raise ConfigError(f"there is no objective called {name!r}; there are {', '.join(OBJECTIVES)}")
    return Objective(name, from_dict(OBJECTIVES[name].config, options or {}, f"options of objective {name}"))


def require_fit(name: str, model: Any, model_name: str) -> None:
    """Refuse an objective that cannot train a network, with those that can; the network may be on the meta device."""
    if OBJECTIVES[name].fits(model):
        return
    fitting = [other for other, entry in OBJECTIVES.items() if entry.fits(model)]
    raise ConfigError(
        f"objective {name!r} cannot train model {model_name!r}; for this model there are {', '.join(fitting) or 'none'}"
    )
