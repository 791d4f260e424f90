"""The weights files of a run: the best, the last, and those of its last epochs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowlight.checkpoint import EPOCH, save_weights
from lowlight.core.config import to_dict
from lowlight.models import MODELS, model_config
from lowlight.objectives import Objective
from lowlight.workflows.training.config import TrainConfig


@dataclass(frozen=True)
class Standing:
    """How long weights have been trained, for the header of their file."""

    step: int
    minutes: float
    skipped: int
    epochs: int  # whole ones


class WeightsFiles:
    """Writes weights into a run's folder with a header that says what made them.

    `facts` is what the header tells of the run beside its configuration: the data, the number format.
    """

    def __init__(self, folder: Path, config: TrainConfig, objective: Objective, facts: dict[str, Any]) -> None:
        self.folder, self.config, self.objective, self.facts = folder, config, objective, facts

    def write(
        self, name: str, state: dict[str, Tensor], standing: Standing, scores: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """Write a state dict to the file called `name`; `more` is recorded beside how it was trained."""
        config = self.config
        trained = {
            "dataset": config.data.name,
            **self.facts,
            "objective": self.objective.name,
            "objective_options": to_dict(self.objective.config),
            "steps": standing.step,
            "epochs": standing.epochs,
            "minutes": round(standing.minutes, 1),
            "batch": config.optimiser.batch,
            "learning_rate": config.optimiser.learning_rate,
            "seed": config.run.seed,
            "skipped_steps": standing.skipped,
            **more,
        }
        if config.preset:
            trained["preset"] = config.preset
        if config.model.start_from:
            trained["started_from"] = config.model.start_from.name
        # Whole networks in fp32 where they are small: what scores them needs the encoder, and the data's options.
        image = MODELS[config.model.name].kind == "image"
        network = model_config(config.model.name, config.model.options)
        needed = image or config.run.keep_posterior or getattr(network, "enhances_with_posterior", False)
        if image:
            trained["dataset_options"] = config.data.options
        save_weights(
            self.folder / name,
            config.model.name,
            network,
            state,
            trained=trained,
            scores={"validation": scores} if scores else {},
            dtype=torch.float32 if image else torch.float16,
            with_posterior=needed and self.objective.uses_posterior,
        )

    def write_epoch(self, epoch: int, state: dict[str, Tensor], standing: Standing) -> None:
        """Write the weights after an epoch, and drop those of epochs that are no longer among the last."""
        self.write(f"epoch-{epoch}.safetensors", state, standing, epoch=epoch)
        for number, path in epoch_files(self.folder).items():
            if number <= epoch - self.config.run.keep_last:
                path.unlink(missing_ok=True)


def epoch_files(folder: Path) -> dict[int, Path]:
    """Find the weights of single epochs in a run's folder, by epoch."""
    found = ((EPOCH.fullmatch(path.name), path) for path in folder.glob("epoch-*.safetensors"))
    return {int(match[1]): path for match, path in sorted(found, key=lambda pair: pair[1]) if match}
