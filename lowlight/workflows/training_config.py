"""What a training run is: the sections of its TOML file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lowlight.core.config import from_dict, to_dict
from lowlight.core.errors import ConfigError
from lowlight.data import DATASETS
from lowlight.models import model_config
from lowlight.objectives import build_objective

Schedule = Literal["constant", "cosine", "milestone"]


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Which network, and options over its preset."""

    name: str = "sid-net"
    options: dict[str, Any] = field(default_factory=dict)
    start_from: Path | None = None  # a weights file to go on from; its configuration must be the same


@dataclass(frozen=True, kw_only=True)
class ObjectiveSection:
    """What is minimised."""

    name: str = "cvae"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """What is learned from, and what is only looked at."""

    name: str = "synthetic"
    path: Path = Path("photos")  # a folder of photos or a packed file
    validation: Path | None = None  # a manifest of real pairs, or a packed file that holds some
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OptimiserSection:
    """Adam and its schedule. Rates are per step; fractions are of the whole run."""

    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    batch: int = 5
    schedule: Schedule = "constant"
    milestone: float = 0.5  # of the run: where the milestone schedule divides the rate by 10
    warmup_steps: int = 0
    clip_norm: float = 0.0  # largest gradient norm; 0: no clipping
    ema: float = 0.0  # decay of the averaged weights; 0: none


@dataclass(frozen=True, kw_only=True)
class RunSection:
    """How long, where and how often."""

    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    validate_every: int = 500  # steps
    checkpoint_every: int = 500  # steps
    log_every: int = 20  # steps


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    model: ModelSection = field(default_factory=ModelSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    data: DataSection = field(default_factory=DataSection)
    optimiser: OptimiserSection = field(default_factory=OptimiserSection)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        if (self.run.steps is None) == (self.run.minutes is None):
            raise ConfigError("a run needs either steps or minutes")
        if self.optimiser.batch < 1 or not 0 <= self.optimiser.ema < 1:
            raise ConfigError("a run needs a batch of at least 1 and an ema from 0 to below 1")
        if self.data.name not in DATASETS:
            raise ConfigError(f"there is no dataset called {self.data.name!r}; there are {', '.join(DATASETS)}")


def resolve(values: dict[str, Any]) -> TrainConfig:
    """A run from plain values, with every section checked and every option filled in."""
    config = from_dict(TrainConfig, values, "the training configuration")
    full = to_dict(config)
    full["model"]["options"] = to_dict(model_config(config.model.name, config.model.options))
    objective = build_objective(config.objective.name, config.objective.options)
    full["objective"]["options"] = to_dict(objective.config)
    dataset = DATASETS[config.data.name]
    options = from_dict(dataset.config, config.data.options, f"options of dataset {config.data.name}")
    full["data"]["options"] = to_dict(options)
    return from_dict(TrainConfig, full, "the training configuration")
