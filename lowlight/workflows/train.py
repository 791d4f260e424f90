"""Training: resolve, show, save, then one readable loop.

A batch depends on the seed and the step alone, and so does the noise of the objective. With a number of steps as the
budget, an interrupted and resumed run is therefore the same as an uninterrupted one.
"""

import json
import logging
import math
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lowlight.checkpoint import load_state, load_weights, save_state, save_weights
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.config import from_dict, read_toml, to_dict, to_toml
from lowlight.core.errors import ConfigError, LowlightError
from lowlight.core.restoration import Batch, Loss, RestorationModel
from lowlight.data import DATASETS, Source
from lowlight.data.packed_set import read_packed_pairs
from lowlight.data.pairs import Pair, load_pair, read_manifest
from lowlight.models import build_model, model_config
from lowlight.objectives import Objective, build_objective
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.training_config import TrainConfig, resolve
from lowlight.workflows.validation import mean_scores, score_pair

logger = logging.getLogger(__name__)

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state.pt"
MAX_SKIPPED_IN_A_ROW = 50


def train(config: TrainConfig, folder: Path, *, resume: bool = False) -> Path:
    """Run a training into `folder` and return its best weights file (the last one without validation).

    Kept there: `config.toml`, `log.jsonl`, `best.safetensors`, `last.safetensors`, `state.pt`. With `resume` a run
    goes on from `state.pt`. SIGINT and SIGTERM end it cleanly after the current step, with the state saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / STATE).exists() and not resume:
        raise ConfigError(f"{folder} holds a run already; resume it, or choose another folder")
    (folder / "config.toml").write_text(to_toml(to_dict(config)), encoding="utf-8")
    run = Run(config, folder)
    if resume and (folder / STATE).exists():
        run.restore_state(load_state(folder / STATE))
    with stop_on_signal() as stopped:
        run.loop(stopped)
    best = folder / BEST
    return best if best.exists() else folder / LAST


def load_config(path: Path | None, overrides: dict[str, Any]) -> TrainConfig:
    """A run from a TOML file with nested `overrides` laid over it."""
    values = read_toml(path) if path else {}
    return resolve(_merged(values, overrides))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class Run:
    """The parts of one run and where it stands."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        run, rates = config.run, config.optimiser
        self.device = choose_device(run.device)
        self.dtype = choose_precision(run.precision, self.device)
        self.model_config = model_config(config.model.name, config.model.options)
        self.objective: Objective = build_objective(config.objective.name, config.objective.options)
        self.model = build_model(config.model.name, self.model_config, run.seed)
        if config.model.start_from:
            _start_from(self.model, config.model.start_from)
        if not self.objective.uses_posterior:
            self.model.encoder = None
        self.model.to(self.device, memory_format=torch.channels_last)
        assert isinstance(self.model, RestorationModel)
        self.source = _open_source(config, self.model, self.device)
        self.pairs = _open_pairs(config.data.validation)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=rates.learning_rate,
            weight_decay=rates.weight_decay,
            fused=self.device.type != "mps",
        )
        self.average = AveragedModel(self.model, multi_avg_fn=_ema(rates.ema)) if rates.ema else None
        self.step = 0
        self.elapsed_s = 0.0
        self.skipped = 0
        self.best_psnr = -math.inf

    def loop(self, stopped: "StopFlag") -> None:
        """Steps until the budget is used up or a signal came."""
        run = self.config.run
        began, before = time.monotonic(), self.elapsed_s
        waited_s, in_a_row = 0.0, 0
        window: list[dict[str, float]] = []
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as ahead:
            upcoming = ahead.submit(self.source.batch, self.step)
            while not stopped and (progress := self._progress()) < 1:
                asked = time.monotonic()
                batch = upcoming.result()
                waited_s += time.monotonic() - asked
                upcoming = ahead.submit(self.source.batch, self.step + 1)
                loss = self._update(batch, progress)
                finite = math.isfinite(float(loss.total.detach()))
                in_a_row = 0 if finite else in_a_row + 1
                if in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    raise LowlightError(
                        f"{in_a_row} steps in a row gave a loss that is not finite; lower the learning rate, "
                        "or use --precision fp32"
                    )
                self.step += 1
                self.elapsed_s = before + time.monotonic() - began
                if finite:
                    parts = {"loss": loss.total.detach(), **loss.parts}
                    window.append({name: float(value) for name, value in parts.items()})
                if self.step % run.log_every == 0:
                    self._log_window(window, waited_s / max(time.monotonic() - began, 1e-9))
                    window = []
                if self.step % run.checkpoint_every == 0:
                    self.save()
                if self.step % run.validate_every == 0:
                    self.validate()
        if self.step % run.validate_every:
            self.validate()
        self.save()

    def _progress(self) -> float:
        if self.config.run.steps is not None:
            return self.step / self.config.run.steps
        assert self.config.run.minutes is not None
        return self.elapsed_s / 60 / self.config.run.minutes

    def _update(self, batch: Batch, progress: float) -> Loss:
        """One step; a loss or gradient that is not finite changes nothing and is counted."""
        rates = self.config.optimiser
        for group in self.optimiser.param_groups:
            group["lr"] = rates.learning_rate * rate_factor(self.config, progress, self.step)
        generator = torch.Generator().manual_seed((self.config.run.seed + 2) * 1_000_003 + self.step)
        self.model.train()
        autocast = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=autocast):
            loss = self.objective(self.model, batch, progress, generator)  # type: ignore[arg-type]
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), rates.clip_norm or math.inf)
        if bool(torch.isfinite(norm)) and bool(torch.isfinite(loss.total)):
            self.optimiser.step()
            if self.average:
                self.average.update_parameters(self.model)
        else:
            self.skipped += 1
            loss = Loss(torch.full_like(loss.total.detach(), math.nan), loss.parts)
        self.optimiser.zero_grad(set_to_none=True)
        return loss

    def weights(self) -> dict[str, Tensor]:
        """The state dict to ship: averaged where averaging is on."""
        model = self.average.module if self.average else self.model
        state: dict[str, Tensor] = model.state_dict()
        return state

    @torch.no_grad()
    def validate(self) -> None:
        """Score the real pairs on full frames; keep the weights where they are the best so far."""
        if not self.pairs:
            return
        began = time.monotonic()
        twin = build_model(self.config.model.name, self.model_config)
        if not self.objective.uses_posterior:
            twin.encoder = None
        twin.load_state_dict(self.weights())
        restorer = Restorer(twin, RestorerOptions(), self.device)
        scores = mean_scores([score_pair(restorer, pair) for pair in self.pairs])
        self._log({"validation": scores, "pairs": len(self.pairs), "seconds": time.monotonic() - began})
        logger.info(
            "step %d: validation %s", self.step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items())
        )
        if scores["psnr"] > self.best_psnr:
            self.best_psnr = scores["psnr"]
            self._save_weights(self.folder / BEST, scores)

    def save(self) -> None:
        """Write the resume state and the last weights."""
        state: dict[str, Any] = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "skipped": self.skipped,
            "best_psnr": self.best_psnr,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }
        save_state(self.folder / STATE, state)
        self._save_weights(self.folder / LAST, {})

    def restore_state(self, state: dict[str, Any]) -> None:
        """Go on where a saved state stands."""
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.skipped, self.best_psnr = state["skipped"], state["best_psnr"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average:
            self.average.load_state_dict(state["average"])

    def _save_weights(self, path: Path, scores: dict[str, float]) -> None:
        trained = {
            "data": self.source.describe(),
            "objective": self.objective.name,
            "objective_options": to_dict(self.objective.config),
            "steps": self.step,
            "minutes": round(self.elapsed_s / 60, 1),
            "batch": self.config.optimiser.batch,
            "seed": self.config.run.seed,
            "skipped_steps": self.skipped,
        }
        if self.config.model.start_from:
            trained["started_from"] = self.config.model.start_from.name
        shown = {"validation": {**scores, "pairs": len(self.pairs)}} if scores else {}
        save_weights(
            path, self.config.model.name, self.model_config, self.weights(), trained=trained, scores=shown
        )

    def _log_window(self, window: list[dict[str, float]], waiting: float) -> None:
        row: dict[str, Any] = {"skipped": self.skipped, "data_share": round(waiting, 4)}
        for name in window[0] if window else ():
            row[name] = sum(entry[name] for entry in window) / len(window)
        row["rate"] = self.optimiser.param_groups[0]["lr"]
        self._log(row)

    def _log(self, row: dict[str, Any]) -> None:
        line = json.dumps({"step": self.step, "elapsed_s": round(self.elapsed_s, 2), **row})
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def rate_factor(config: TrainConfig, progress: float, step: int) -> float:
    """What the learning rate is multiplied by at this point of a run."""
    rates = config.optimiser
    factor = 1.0
    if rates.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    elif rates.schedule == "milestone" and progress >= rates.milestone:
        factor = 0.1
    if step < rates.warmup_steps:
        factor *= (step + 1) / rates.warmup_steps
    return factor


def _ema(decay: float) -> Any:
    """Averaging that starts fast, so that the first random weights are soon forgotten."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        seen = int(count)
        weight = 1 - min(decay, (1 + seen) / (10 + seen))
        torch._foreach_lerp_(averaged, current, weight)

    return update


def _open_source(config: TrainConfig, model: Any, device: torch.device) -> Source:
    entry = DATASETS[config.data.name]
    options = from_dict(entry.config, config.data.options, f"options of dataset {config.data.name}")
    return entry.build(
        config.data.path, model.traits, options, config.optimiser.batch, config.run.seed, device
    )


def _open_pairs(path: Path | None) -> list[Pair]:
    if path is None:
        return []
    if path.suffix.lower() == ".csv":
        return [load_pair(row) for row in read_manifest(path)]
    return read_packed_pairs(path)


def _start_from(model: nn.Module, path: Path) -> None:
    """Take the weights of a file into a fresh network; an encoder the file lacks stays as it was drawn."""
    other, header = load_weights(path)
    if other.config != model.config:
        raise ConfigError(f"{path} has another configuration than this run's model; start from matching weights")
    missing, unexpected = model.load_state_dict(other.state_dict(), strict=False)
    if unexpected or any(not name.startswith("encoder.") for name in missing):
        raise ConfigError(f"{path} does not fit this run's model ({header['model']})")


class StopFlag:
    """True once a signal asked the run to end."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag while the block runs; a second one ends the program at once."""
    flag = StopFlag()

    def note(number: int, frame: Any) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.signal = number

    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                previous[number] = signal.signal(number, note)
            except ValueError:  # not in the main thread: signals are somebody else's business
                break
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
