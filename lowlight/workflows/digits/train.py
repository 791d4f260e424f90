"""Training a digit network: one readable loop over batches that (seed, step) gives.

A run that was stopped and resumed is the same as an uninterrupted one.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowlight.checkpoint import load_state, save_state
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.config import read_toml, to_dict, to_toml
from lowlight.core.errors import ConfigError, InterruptedRunError, LowlightError, WeightsError
from lowlight.data.digits import DigitSource, read_digits, stream
from lowlight.models.digits import build_digit_model, digit_config
from lowlight.objectives.digits import bound
from lowlight.workflows.digits.config import DigitRunConfig, first_difference, objective_of, resolve, task_of
from lowlight.workflows.digits.weights import save_digit_weights
from lowlight.workflows.training.log import TrainingLog
from lowlight.workflows.training.stopping import stop_on_signal
from lowlight.writers.atomic import replacing

logger = logging.getLogger(__name__)

CONFIG, STATE, WEIGHTS, LOG = "config.toml", "state.pt", "weights.safetensors", "log.jsonl"
SAVE_EVERY_S = 60.0
_NOISE_STREAM = 3  # of the latent draws; the data have streams of their own


@dataclass(frozen=True)
class EpochDone:
    """Where a run stands after an epoch, for whoever watches it."""

    epoch: int  # epochs done
    epochs: int
    elapsed_s: float
    losses: dict[str, float]


def train_digits(
    config: DigitRunConfig,
    folder: Path,
    *,
    resume: bool = False,
    watch: Callable[[EpochDone], None] | None = None,
) -> Path:
    """Train into `folder` and return the weights file.

    Kept there: `config.toml`, `log.jsonl` (a row an epoch), `state.pt` and `weights.safetensors`. SIGINT and SIGTERM
    end the run after the current epoch, with its state saved, by raising `InterruptedRunError`.
    """
    state = _open_folder(config, folder, resume)
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    options = digit_config(config.model, config.options)
    objective = objective_of(options, config.beta)
    digits = read_digits(config.data, "train")
    source = DigitSource(
        digits.first(config.limit or len(digits)).to(device), task_of(options), config.batch, config.seed
    )
    model = build_digit_model(options, config.seed)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=device.type != "mps")
    epoch, elapsed_s = 0, 0.0
    if state is not None:
        if state.get("data") != source.describe():
            raise ConfigError(f"{folder} was trained from other images than {config.data}; give it the same ones")
        try:
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            epoch, elapsed_s = state["epoch"], state["elapsed_s"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{folder / STATE} does not fit this run; start the run anew") from error
    folder.mkdir(parents=True, exist_ok=True)
    log = TrainingLog(folder / LOG)
    log.keep_until(epoch * source.steps_per_epoch)
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(to_toml(to_dict(config)), encoding="utf-8")

    def take_step(step: int) -> dict[str, Tensor]:
        batch = source.batch(step)
        noise = stream(config.seed, _NOISE_STREAM, step)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = bound(model, batch, step / (config.epochs * source.steps_per_epoch), noise, objective)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return {"loss": loss.total.detach(), **loss.parts}

    def save() -> None:
        parts: dict[str, Any] = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
        save_state(folder / STATE, {"epoch": epoch, "elapsed_s": elapsed_s, "data": source.describe(), **parts})
        trained = {
            "data": source.describe(),
            "objective": to_dict(objective),
            "epochs": epoch,
            "seconds": round(elapsed_s, 1),
            "batch": config.batch,
            "learning_rate": config.learning_rate,
            "precision": str(dtype).removeprefix("torch."),
            "seed": config.seed,
        }
        save_digit_weights(folder / WEIGHTS, config.model, options, model.state_dict(), trained)

    began_s = time.monotonic() - elapsed_s
    saved_s = elapsed_s
    with stop_on_signal() as stopped:
        while epoch < config.epochs and not stopped:
            first = epoch * source.steps_per_epoch
            losses = _mean([take_step(step) for step in range(first, first + source.steps_per_epoch)])
            if not math.isfinite(losses["loss"]):
                raise LowlightError(f"epoch {epoch + 1} gave a loss that is not finite; lower the learning rate")
            epoch, elapsed_s = epoch + 1, time.monotonic() - began_s
            log.append({"step": first + source.steps_per_epoch, "elapsed_s": round(elapsed_s, 2), **losses})
            if elapsed_s - saved_s >= SAVE_EVERY_S:
                save()
                saved_s = elapsed_s
            if watch:
                watch(EpochDone(epoch, config.epochs, elapsed_s, losses))
    save()
    if epoch < config.epochs:
        raise InterruptedRunError(f"stopped after epoch {epoch}, all is saved in {folder}; go on with --resume")
    return folder / WEIGHTS


def saved_run(folder: Path) -> DigitRunConfig | None:
    """Read the configuration of the run in `folder`, None where there is none."""
    path = folder / CONFIG
    return resolve(read_toml(path)) if path.is_file() else None


def _open_folder(config: DigitRunConfig, folder: Path, resume: bool) -> dict[str, Any] | None:
    """The state to go on from, None for a run that begins; refuses what would spoil another run."""
    if not (folder / STATE).exists():
        return None
    if not resume:
        raise ConfigError(f"{folder} holds a run already; go on with --resume, or choose another folder")
    old = saved_run(folder)
    if old and (difference := first_difference(old, config)):
        raise ConfigError(f"{folder} cannot be resumed with another configuration: {difference}; leave it as it was")
    return load_state(folder / STATE)


def _mean(steps: list[dict[str, Tensor]]) -> dict[str, float]:
    """Mean of every loss over the steps of an epoch, with one transfer from the device."""
    means = torch.stack([torch.stack([value.float() for value in step.values()]) for step in steps]).mean(0)
    return dict(zip(steps[0], means.tolist(), strict=True))
