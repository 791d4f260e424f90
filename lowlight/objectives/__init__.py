"""Every objective under the name users type. To add one: write its function, add its entry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lowlight.core.config import from_dict
from lowlight.core.errors import ConfigError
from lowlight.core.restoration import Batch, Loss, RestorationModel
from lowlight.objectives.elbo import CvaeConfig, HybridConfig, L1Config, cvae, hybrid, l1


@dataclass(frozen=True)
class Entry:
    """An objective: its configuration class, its function, and whether it trains the posterior encoder.

    A configuration that decides the last itself has a property `uses_posterior`.
    """

    config: type[Any]
    function: Callable[..., Loss]
    uses_posterior: bool
    summary: str


OBJECTIVES: dict[str, Entry] = {
    "cvae": Entry(CvaeConfig, cvae, True, "the conditional VAE's bound: L1 + beta KL"),
    "hybrid": Entry(HybridConfig, hybrid, True, "alpha times cvae, the rest L1 from a sample of the prior"),
    "l1": Entry(L1Config, l1, False, "L1 from the prior's mean, no encoder"),
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

    def __call__(self, model: RestorationModel, batch: Batch, progress: float, generator: torch.Generator) -> Loss:
        """Give the loss of one batch; `progress` in [0, 1] says how far training has come."""
        return OBJECTIVES[self.name].function(model, batch, progress, generator, self.config)


def build_objective(name: str, options: dict[str, Any] | None = None) -> Objective:
    """Bind the objective called `name` to `options`; unknown names and keys are refused."""
    if name not in OBJECTIVES:
        raise ConfigError(f"there is no objective called {name!r}; there are {', '.join(OBJECTIVES)}")
    return Objective(name, from_dict(OBJECTIVES[name].config, options or {}, f"options of objective {name}"))
