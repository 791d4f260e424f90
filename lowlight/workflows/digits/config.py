"""What a digit run is, and which objective and task belong to which network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowlight.core.config import from_dict, to_dict
from lowlight.core.errors import ConfigError
from lowlight.data.digits import Task
from lowlight.models.digits import digit_config
from lowlight.models.vae import DigitVaeConfig
from lowlight.objectives.digits import BoundConfig

# What a resumed run may change: where it computes and how far it goes.
FREE_ON_RESUME = ("data", "device", "epochs")


@dataclass(frozen=True, kw_only=True)
class DigitRunConfig:
    """One digit run. The defaults are the thesis'."""

    model: str = "vae-10"
    options: dict[str, Any] = field(default_factory=dict)  # over the network's preset
    data: Path = Path("mnist")  # a folder with the idx files of MNIST, or with KMNIST
    epochs: int = 200
    batch: int = 1000
    learning_rate: float = 1e-3  # Adam
    beta: float = 1.0  # weight of the divergence
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    limit: int | None = None  # train on the first so many images only

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}; expected above 0")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; expected 0 to 2147483647")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ConfigError(f"precision is {self.precision!r}; expected auto, fp32 or bf16")


def resolve(values: dict[str, Any]) -> DigitRunConfig:
    """Build a run from plain values, with the network's options checked and filled in."""
    config = from_dict(DigitRunConfig, values, "the digit run")
    options = to_dict(digit_config(config.model, config.options))
    return from_dict(DigitRunConfig, {**to_dict(config), "options": options}, "the digit run")


def task_of(options: DigitVaeConfig) -> Task:
    """What a network is for: a prior that reads an image restores it, the others reconstruct."""
    return "transfer" if options.prior == "image" else "reconstruction"


def objective_of(options: DigitVaeConfig, beta: float) -> BoundConfig:
    """What a network is trained with: L1 for the transfer, else half the squared error; autoencoders without KL."""
    likelihood = "laplace" if task_of(options) == "transfer" else "gaussian"
    return from_dict(
        BoundConfig, {"likelihood": likelihood, "beta": beta if options.variance else 0.0}, "the digit objective"
    )


def first_difference(old: DigitRunConfig, new: DigitRunConfig) -> str | None:
    """Say which key makes `new` another run than `old`, or None where one can resume the other."""
    before, after = to_dict(old), to_dict(new)
    for key in sorted({*before, *after} - set(FREE_ON_RESUME)):
        if before.get(key) != after.get(key):
            return f"{key} was {before.get(key)!r} and is {after.get(key)!r}"
    return None
