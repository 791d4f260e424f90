"""One training run: its parts, where it stands, and the loop."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lowlight.checkpoint import read_header, save_state, save_weights
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.config import to_dict
from lowlight.core.errors import ConfigError, LowlightError, WeightsError
from lowlight.core.restoration import Batch, RestorationModel
from lowlight.data import Source
from lowlight.data.pairs import list_sha256
from lowlight.models import model_config
from lowlight.objectives import Objective, build_objective
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.evaluating.validation import mean_scores, score_pair
from lowlight.workflows.training.compute import batch_on, fast_kernels, one_thread_ahead, seeded
from lowlight.workflows.training.config import TrainConfig
from lowlight.workflows.training.log import TrainingLog
from lowlight.workflows.training.parts import fresh_model, open_source, open_validation, plan_model
from lowlight.workflows.training.schedules import averaging, rate_factor
from lowlight.workflows.training.stopping import StopFlag

logger = logging.getLogger(__name__)

BEST, LAST, STATE, LOG = "best.safetensors", "last.safetensors", "state.pt", "log.jsonl"
MAX_SKIPPED_IN_A_ROW = 50


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever watches it."""

    step: int
    fraction: float  # of the budget, 0 to 1
    elapsed_s: float
    skipped: int  # steps so far
    loss: float | None = None  # of this step; None where it was skipped
    scores: dict[str, float] | None = None  # of the last validation


Watcher = Callable[[Progress], None]


class Run:
    """The parts of one run and where it stands."""

    def __init__(self, config: TrainConfig, folder: Path, *, fresh: bool = True) -> None:
        self.config, self.folder = config, folder
        run, rates = config.run, config.optimiser
        self.device = choose_device(run.device)
        self.dtype = choose_precision(run.precision, self.device)
        self.objective: Objective = build_objective(config.objective.name, config.objective.options)
        self.model = fresh_model(config, start=fresh)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert isinstance(self.model, RestorationModel)
        self.parameters = list(self.model.parameters())
        # Other accelerators lack some of the random draws a sensor needs.
        self.source: Source = open_source(config, self.model, self.device if self._cuda else torch.device("cpu"))
        self.pairs = open_validation(config.data.validation)
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=rates.learning_rate,
            weight_decay=rates.weight_decay,
            fused=self.device.type != "mps",
        )
        self.average = AveragedModel(self.model, multi_avg_fn=averaging(rates.ema)) if rates.ema else None
        folder.mkdir(parents=True, exist_ok=True)
        self.log = TrainingLog(folder / LOG)
        self.step = 0
        self.elapsed_s = 0.0
        self.skipped = 0
        self.best_psnr = -math.inf
        self.validated_at = 0  # step
        self.scores: dict[str, float] | None = None
        self.chosen_on = ""  # hash of the pairs that were scored
        self.window: list[dict[str, float]] = []  # losses since the last row of the log

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"

    def loop(self, stopped: StopFlag, watch: Watcher | None = None) -> None:
        """Take steps until the budget is used up or a signal came, and save."""
        run = self.config.run
        began_s = time.monotonic() - self.elapsed_s
        entered_s, waited_s, in_a_row = time.monotonic(), 0.0, 0
        if self._validation_due():  # the run was stopped in the middle of one
            self.validate(stopped)
        with fast_kernels(self.device), one_thread_ahead() as ahead:
            upcoming = ahead.submit(self.source.batch, self.step)
            while not stopped and (progress := self._progress()) < 1:
                asked_s = time.monotonic()
                batch = upcoming.result()
                waited_s += time.monotonic() - asked_s
                upcoming = ahead.submit(self.source.batch, self.step + 1)
                parts = self._update(batch, progress)
                in_a_row = 0 if parts else in_a_row + 1
                if in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    raise LowlightError(
                        f"{in_a_row} steps in a row gave a loss that is not finite; lower the learning rate, "
                        "or use --precision fp32"
                    )
                self.step += 1
                self.elapsed_s = time.monotonic() - began_s
                if parts:
                    self.window.append(parts)
                if self.step % run.log_every == 0:
                    self._log_window(waited_s / max(time.monotonic() - entered_s, 1e-9))
                if self._validation_due():
                    self.validate(stopped)
                if self.step % run.checkpoint_every == 0:
                    self.save()
                if watch:
                    watch(self._standing(parts))
        if not stopped and self.validated_at != self.step:
            self.validate(stopped)
            if watch:
                watch(self._standing(None))
        self.save()

    def _validation_due(self) -> bool:
        return self.step % self.config.run.validate_every == 0 and self.validated_at != self.step

    def _progress(self) -> float:
        if self.config.run.steps is not None:
            return self.step / self.config.run.steps
        assert self.config.run.minutes is not None
        return self.elapsed_s / 60 / self.config.run.minutes

    def _standing(self, parts: dict[str, float] | None) -> Progress:
        loss = parts["loss"] if parts else None
        fraction = min(self._progress(), 1.0)
        return Progress(self.step, fraction, self.elapsed_s, self.skipped, loss, self.scores)

    def _update(self, batch: Batch, progress: float) -> dict[str, float] | None:
        """Take one step and give its losses; None, and nothing changed, where loss or gradient is not finite."""
        rates, seed = self.config.optimiser, (self.config.run.seed + 2) * 1_000_003 + self.step
        for group in self.optimiser.param_groups:
            group["lr"] = rates.learning_rate * rate_factor(rates, progress, self.step)
        self.model.train()
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        try:
            with seeded(seed, self.device), autocast:
                generator = torch.Generator().manual_seed(seed)
                model = cast(RestorationModel, self.model)
                loss = self.objective(model, batch_on(batch, self.device), progress, generator)
            loss.total.backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            raise LowlightError(
                f"{self.device} has too little memory for {rates.batch} items a step; use a smaller --batch"
            ) from error
        if rates.clip_norm:
            norm = nn.utils.clip_grad_norm_(self.parameters, rates.clip_norm)
        else:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
        # One transfer from the device for all numbers of the step.
        numbers = torch.stack([norm.float(), loss.total.detach().float(), *map(_scalar, loss.parts.values())])
        size, total, *parts = numbers.tolist()
        finite = math.isfinite(size) and math.isfinite(total)
        if finite:
            self.optimiser.step()
            if self.average:
                self.average.update_parameters(self.model)
        else:
            self.skipped += 1
        self.optimiser.zero_grad(set_to_none=True)
        return {"loss": total, **dict(zip(loss.parts, parts, strict=True))} if finite else None

    def weights(self) -> dict[str, Tensor]:
        """Give the state dict to ship: averaged where averaging is on."""
        model = self.average.module if self.average else self.model
        state: dict[str, Tensor] = model.state_dict()
        return state

    @torch.no_grad()
    def validate(self, stopped: StopFlag) -> None:
        """Score the real pairs on full frames; keep the weights where they are the best so far.

        A signal abandons it, and a resumed run begins it again. What cannot be scored ends no training.
        """
        began_s = time.monotonic()
        scores = {}
        if self.pairs:
            # A second network on the same tensors: the first stays in training.
            twin = plan_model(self.config)
            twin.load_state_dict(self.weights(), assign=True)
            options = RestorerOptions(precision=self.config.run.precision)
            try:
                restorer = Restorer(twin, options, self.device)
                rows = []
                for read in self.pairs:
                    if stopped:
                        return
                    rows.append(score_pair(restorer, read()))
                scores = mean_scores(rows)
                self.chosen_on = list_sha256((row.scene, row.dark) for row in rows)
            except LowlightError as error:
                logger.warning("step %d cannot be validated: %s", self.step, error)
                self._append({"validation_error": str(error)})
        self.validated_at = self.step
        if not scores:
            return
        self.scores = scores
        seconds = round(time.monotonic() - began_s, 2)
        self._append({"validation": scores, "pairs": len(self.pairs), "seconds": seconds})
        logger.info("step %d: %s", self.step, ", ".join(f"{key} {value:.4f}" for key, value in scores.items()))
        if scores.get("psnr", -math.inf) > self.best_psnr:
            self.best_psnr = scores["psnr"]
            self._save_weights(self.folder / BEST, scores)

    def save(self) -> None:
        """Write the resume state and the last weights."""
        state: dict[str, Any] = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "skipped": self.skipped,
            "best_psnr": self.best_psnr,
            "validated_at": self.validated_at,
            "scores": self.scores,
            "window": self.window,
            "data": self.source.describe(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }
        save_state(self.folder / STATE, state)
        self._save_weights(self.folder / LAST, {})

    def restore_state(self, state: dict[str, Any]) -> None:
        """Go on where a saved state stands."""
        data = self.source.describe()
        if state.get("data", data) != data:
            raise ConfigError(
                f"the run in {self.folder} was trained from other data than {self.config.data.path}; "
                "give it the same photos, or begin a new run with --start-from"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average:
                self.average.load_state_dict(state["average"])
            self.step, self.elapsed_s = state["step"], state["elapsed_s"]
            self.skipped, self.best_psnr = state["skipped"], state["best_psnr"]
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise WeightsError(f"{self.folder / STATE} does not fit this run; start the run anew") from error
        # States from before these keys were written right in front of a validation.
        self.validated_at = state.get("validated_at", self.step)
        self.scores = state.get("scores")
        self.window = state.get("window", [])
        # A killed run may have found better weights after its last state.
        self.best_psnr = max(self.best_psnr, _recorded_psnr(self.folder / BEST))

    def _save_weights(self, path: Path, scores: dict[str, float]) -> None:
        config = self.config
        trained = {
            "data": self.source.describe(),
            "objective": self.objective.name,
            "objective_options": to_dict(self.objective.config),
            "steps": self.step,
            "minutes": round(self.elapsed_s / 60, 1),
            "batch": config.optimiser.batch,
            "seed": config.run.seed,
            "skipped_steps": self.skipped,
        }
        if config.model.start_from:
            trained["started_from"] = config.model.start_from.name
        chosen = {"pairs": len(self.pairs), "list_sha256": self.chosen_on}
        shown = {"validation": {**scores, **chosen}} if scores else {}
        options = model_config(config.model.name, config.model.options)
        save_weights(
            path,
            config.model.name,
            options,
            self.weights(),
            trained=trained,
            scores=shown,
            with_posterior=config.run.keep_posterior and self.objective.uses_posterior,
        )

    def _log_window(self, waiting: float) -> None:
        row: dict[str, Any] = {"skipped": self.skipped, "data_share": round(waiting, 4)}
        for name in self.window[0] if self.window else ():
            row[name] = sum(entry[name] for entry in self.window) / len(self.window)
        row["rate"] = self.optimiser.param_groups[0]["lr"]
        self._append(row)
        self.window = []

    def _append(self, row: dict[str, Any]) -> None:
        self.log.append({"step": self.step, "elapsed_s": round(self.elapsed_s, 2), **row})


def _scalar(value: Tensor) -> Tensor:
    return value.detach().float()


def _recorded_psnr(path: Path) -> float:
    try:
        return float(read_header(path)["scores"]["validation"]["psnr"])
    except (WeightsError, KeyError, TypeError):
        return -math.inf
