"""What a training run is: the sections of its TOML file."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lowlight.core.config import from_dict, read_toml, to_dict
from lowlight.core.errors import ConfigError
from lowlight.data import DATASETS, require_kind
from lowlight.models import build_model, model_config
from lowlight.objectives import build_objective, require_fit
from lowlight.workflows.training.presets import find_preset

Schedule = Literal["constant", "cosine", "milestone"]
Optimiser = Literal["adamw", "adam", "adamax"]
TRAINING_PRECISIONS = ("auto", "fp32", "bf16")
SCHEDULE_OF = {"milestone": "milestone", "final": "cosine"}  # which one schedule a key is about
BUDGETS = ("steps", "minutes", "epochs")  # a run has exactly one

# What a resumed run may change: where and how long it computes, and how often it reports.
FREE_ON_RESUME = (
    "preset",
    "model.start_from",
    "data.path",
    "data.validation",
    "run.steps",
    "run.minutes",
    "run.epochs",
    "run.keep_last",
    "run.device",
    "run.graphs",
    "run.validate_every",
    "run.checkpoint_every",
    "run.log_every",
)


def _check(name: str, value: object, expected: str, holds: bool) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; expected {expected}")


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
    path: Path = Path("photos")  # a folder of photos, pictures or pairs, or a packed file
    # A manifest of real pairs, or a packed file that holds some. Of pictures a folder; None: the same, its other split.
    validation: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OptimiserSection:
    """Adam or one of its kin, and its schedule. Rates are per step; fractions are of the whole run."""

    name: Optimiser = "adamw"  # adam: weight decay is part of the gradient; adamax: scaled by the largest gradients
    learning_rate: float = 1e-4
    eps: float = 1e-8  # added to what the gradient is divided by
    weight_decay: float = 0.0
    batch: int = 5
    schedule: Schedule = "constant"
    milestone: float = 0.5  # of the run: where the milestone schedule divides the rate by 10
    final: float = 0.0  # fraction of the rate that the cosine schedule ends at
    warmup_steps: int = 0
    clip_norm: float | None = None  # largest gradient norm; 0: no clipping; unset: 1 for Fisher on RAW, else 0
    ema: float = 0.0  # decay of the averaged weights; 0: none
    freeze_norms: float = 1.0  # of the run: from where batch norms use their running numbers, as later; 1: never

    def __post_init__(self) -> None:
        _check("learning_rate", self.learning_rate, "above 0", self.learning_rate > 0)
        _check("eps", self.eps, "above 0", self.eps > 0)
        _check("weight_decay", self.weight_decay, "at least 0", self.weight_decay >= 0)
        _check("batch", self.batch, "at least 1", self.batch >= 1)
        _check("milestone", self.milestone, "from 0 to 1", 0 <= self.milestone <= 1)
        _check("final", self.final, "from 0 to 1", 0 <= self.final <= 1)
        for name, schedule in SCHEDULE_OF.items():
            value = getattr(self, name)
            if self.schedule != schedule and value != getattr(OptimiserSection, name):
                raise ConfigError(
                    f"{name} is {value}, which says nothing to the schedule {self.schedule}; leave it out, or choose "
                    f"the schedule {schedule}"
                )
        _check("warmup_steps", self.warmup_steps, "at least 0", self.warmup_steps >= 0)
        _check("clip_norm", self.clip_norm, "at least 0", self.clip_norm is None or self.clip_norm >= 0)
        _check("ema", self.ema, "from 0 to below 1", 0 <= self.ema < 1)
        _check("freeze_norms", self.freeze_norms, "from 0 to 1", 0 <= self.freeze_norms <= 1)


@dataclass(frozen=True, kw_only=True)
class RunSection:
    """How long, where and how often."""

    steps: int | None = None
    minutes: float | None = None
    epochs: int | None = None  # of as many steps as show every scene, or as many items as there are photos, once
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    validate_every: int = 500  # steps
    checkpoint_every: int = 500  # steps
    log_every: int = 20  # steps
    keep_last: int = 0  # of how many last epochs the weights are kept, each in a file of its own
    graphs: bool = False  # replay each step as one CUDA graph, for networks of many small layers
    keep_posterior: bool = False  # whether weights files hold the encoder too; those of image models always do

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not None for name in BUDGETS) != 1:
            raise ConfigError("a run needs either steps or minutes or epochs, and only one of them")
        for name in ("steps", "epochs", "validate_every", "checkpoint_every", "log_every"):
            value = getattr(self, name)
            _check(name, value, "at least 1", value is None or value >= 1)
        _check("keep_last", self.keep_last, "at least 0", self.keep_last >= 0)
        _check("minutes", self.minutes, "above 0", self.minutes is None or self.minutes > 0)
        _check("seed", self.seed, "from 0 to 2147483647", 0 <= self.seed < 2**31)
        # fp16 gradients underflow without a scaled loss, and bf16 is there wherever fp16 would be fast.
        known = TRAINING_PRECISIONS
        _check("precision", self.precision, f"one of {', '.join(known)}", self.precision in known)

    @property
    def budget(self) -> str:
        """How long, in words."""
        return next(f"{value:g} {name}" for name in BUDGETS if (value := getattr(self, name)) is not None)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    preset: str = ""  # the one it was made from, for whoever reads the weights' header
    model: ModelSection = field(default_factory=ModelSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    data: DataSection = field(default_factory=DataSection)
    optimiser: OptimiserSection = field(default_factory=OptimiserSection)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        if self.data.name not in DATASETS:
            raise ConfigError(f"there is no dataset called {self.data.name!r}; there are {', '.join(DATASETS)}")


def resolve(values: dict[str, Any]) -> TrainConfig:
    """Build a run from plain values, with every section checked and every option filled in.

    An objective or a dataset that the model cannot be trained with is refused.
    """
    config = from_dict(TrainConfig, values, "the training configuration")
    full = to_dict(config)
    model_options = model_config(config.model.name, config.model.options)
    full["model"]["options"] = to_dict(model_options)
    objective = build_objective(config.objective.name, config.objective.options)
    full["objective"]["options"] = to_dict(objective.config)
    dataset = DATASETS[config.data.name]
    options = from_dict(dataset.config, config.data.options, f"options of dataset {config.data.name}")
    full["data"]["options"] = to_dict(options)
    with torch.device("meta"):
        model: Any = build_model(config.model.name, model_options)
    require_fit(config.objective.name, model, config.model.name)
    require_kind(config.data.name, model.traits, config.model.name)
    if config.optimiser.clip_norm is None:
        full["optimiser"]["clip_norm"] = objective.raw_clip_norm if model.traits.kind == "raw" else 0.0
    frozen = config.optimiser.freeze_norms
    if frozen < 1 and not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
        raise ConfigError(f"freeze_norms is {frozen}, and {config.model.name} as set has no batch norms; leave it out")
    return from_dict(TrainConfig, full, "the training configuration")


def load_config(path: Path | None, overrides: dict[str, Any], preset: str | None = None) -> TrainConfig:
    """Build a run from a preset, a TOML file over it, and nested `overrides` over both.

    A key overridden by None is unset. A layer that names a budget (steps, minutes or epochs) unsets the others below,
    and one that names a schedule what is about others.
    """
    values = {**read_toml(find_preset(preset)), "preset": preset} if preset else {}
    if path:
        values = _laid_over(values, read_toml(path))
    return resolve(_laid_over(values, overrides))


def first_difference(old: TrainConfig, new: TrainConfig) -> str | None:
    """Say which key makes `new` another run than `old`, in words, or None where one can resume the other."""
    before, after = _flat(to_dict(old)), _flat(to_dict(new))
    for key in sorted({*before, *after} - set(FREE_ON_RESUME)):
        if before.get(key) != after.get(key):
            return f"{key} was {before.get(key)!r} and is {after.get(key)!r}"
    return None


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    if any(_section(above, "run").get(name) is not None for name in BUDGETS):
        below = _without(below, "run", BUDGETS)
    if schedule := _section(above, "optimiser").get("schedule"):
        below = _without(below, "optimiser", [key for key, named in SCHEDULE_OF.items() if named != schedule])
    return _merged(below, above)


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _without(values: dict[str, Any], name: str, keys: Collection[str]) -> dict[str, Any]:
    section = values.get(name)
    if not isinstance(section, dict):
        return values
    return {**values, name: {key: value for key, value in section.items() if key not in keys}}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
