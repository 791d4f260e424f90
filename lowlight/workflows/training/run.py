"""One training run: its parts, where it stands, and the loop."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowlight.checkpoint import BEST, LAST, read_header, save_state
from lowlight.core.atomic import write_text
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.errors import ConfigError, LowlightError, WeightsError
from lowlight.core.folders import make_folder
from lowlight.core.restoration import Batch
from lowlight.data import Source
from lowlight.data.pairs import PAIR_LIST
from lowlight.objectives import Objective, build_objective
from lowlight.report.curves import curves_svg
from lowlight.workflows.stopping import StopFlag
from lowlight.workflows.team import Team
from lowlight.workflows.training.board import Board
from lowlight.workflows.training.compute import fast_kernels, one_thread_ahead
from lowlight.workflows.training.config import TrainConfig
from lowlight.workflows.training.learner import Learner
from lowlight.workflows.training.parts import epoch_steps, fresh_model, open_source, plan_model, same_data
from lowlight.workflows.training.validating import open_validation_of
from lowlight.workflows.training.weights_files import Standing, WeightsFiles
from lowlight.workflows.training_log import LOG, TrainingLog

logger = logging.getLogger(__name__)

STATE, CURVES, BOARD = "state.pt", "curves.svg", "tensorboard"
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
    decisive: str | None = None  # which of the scores decides what the best weights are
    steps: int | None = None  # of the whole run, where that is known


Watcher = Callable[[Progress], None]


class Run:
    """The parts of one run and where it stands. Of a team only the leading process writes, logs and validates."""

    def __init__(self, config: TrainConfig, folder: Path, *, fresh: bool = True, team: Team | None = None) -> None:
        self.config, self.folder, self.team = config, folder, team or Team()
        self.device = self.team.device or choose_device(config.run.device)
        self.dtype = choose_precision(config.run.precision, self.device)
        self.objective: Objective = build_objective(config.objective.name, config.objective.options)
        model = fresh_model(config, start=fresh)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Other accelerators lack some of the random draws a sensor needs.
        self.source: Source = open_source(config, model, self.device if self._cuda else torch.device("cpu"))
        self.validation = open_validation_of(config)
        self.learner = Learner(config, model, self.objective, self.device, self.dtype, self.team)
        self.epoch_steps = epoch_steps(self.source, config.optimiser.batch)
        make_folder(folder)
        facts = {"data": self.source.describe(), "precision": str(self.dtype).removeprefix("torch.")}
        self.files = WeightsFiles(folder, config, self.objective, facts)
        self.log = TrainingLog(folder / LOG)
        self.board: Board | None = None
        self.step, self.skipped, self.elapsed_s = 0, 0, 0.0
        self.best: float | None = None  # of the numbers that decide
        self.judged_on: dict[str, Any] | None = None  # what tells the things that number is of
        self.validated_at = 0  # step
        self.scores: dict[str, float] | None = None
        self.window: list[dict[str, float]] = []  # losses since the last row of the log

    @property
    def model(self) -> nn.Module:
        """The network in training."""
        return self.learner.model

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """What changes the network."""
        return self.learner.optimiser

    @property
    def steps(self) -> int | None:
        """Steps of the whole run, None where it has minutes."""
        run = self.config.run
        return run.steps if run.epochs is None else run.epochs * self.epoch_steps

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"

    def loop(self, stopped: StopFlag, watch: Watcher | None = None) -> None:
        """Take steps until the budget is used up or a signal came, and save."""
        run = self.config.run
        if self.team.leads:
            self.board = Board(self.folder / BOARD, self.step)
        began_s = time.monotonic() - self.elapsed_s
        entered_s, waited_s, in_a_row = time.monotonic(), 0.0, 0
        if self._validation_due():  # the run was stopped in the middle of one
            self.validate(stopped)
        # Trying every convolution of a network that is worth recording takes longer than it saves.
        with fast_kernels(self.device, choose=not run.graphs), one_thread_ahead() as ahead:
            upcoming = ahead.submit(self._share, self.step)
            while not self._agree_to_stop(stopped) and (progress := self._progress()) < 1:
                asked_s = time.monotonic()
                batch = upcoming.result()
                waited_s += time.monotonic() - asked_s
                upcoming = ahead.submit(self._share, self.step + 1)
                parts = self.learner.learn(batch, progress, self.step)
                self.skipped += parts is None
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
                if self._epoch_is_kept():
                    self.files.write_epoch(self.step // self.epoch_steps, self.weights(), self._reached())
                if self.step % run.checkpoint_every == 0:
                    self.save()
                if watch:
                    watch(self._standing(parts))
        if not stopped and self.window:  # steps since the last row, or all of a short run
            self._log_window(waited_s / max(time.monotonic() - entered_s, 1e-9))
        if not stopped and self.validated_at != self.step:
            self.validate(stopped)
            if watch:
                watch(self._standing(None))
        self.save()
        if self.board:
            self.board.close()

    def _share(self, step: int) -> Batch:
        return self.team.share_of(self.source.batch(step))

    def _agree_to_stop(self, stopped: StopFlag) -> StopFlag:
        """Tell every process of a signal that came to one, and of the time that has passed."""
        signal, self.elapsed_s = self.team.largest(stopped.signal or 0, self.elapsed_s)
        if signal:
            stopped.signal = int(signal)
        return stopped

    def _epoch_is_kept(self) -> bool:
        """Whether an epoch ends here whose weights may be among the last ones."""
        epoch, rest = divmod(self.step, self.epoch_steps)
        keep, steps = self.config.run.keep_last, self.steps
        if rest or not keep or not self.team.leads:
            return False
        return steps is None or epoch > steps // self.epoch_steps - keep

    def _validation_due(self) -> bool:
        return self.step % self.config.run.validate_every == 0 and self.validated_at != self.step

    def _progress(self) -> float:
        if self.steps is not None:
            return self.step / self.steps
        assert self.config.run.minutes is not None
        return self.elapsed_s / 60 / self.config.run.minutes

    def _standing(self, parts: dict[str, float] | None) -> Progress:
        loss = parts["loss"] if parts else None
        fraction = min(self._progress(), 1.0)
        decisive = self.validation.decisive(self.scores) if self.scores else None
        return Progress(self.step, fraction, self.elapsed_s, self.skipped, loss, self.scores, decisive, self.steps)

    def _reached(self) -> Standing:
        return Standing(self.step, self.elapsed_s / 60, self.skipped, self.step // self.epoch_steps)

    def weights(self) -> dict[str, Tensor]:
        """Give the state dict to ship: averaged where averaging is on."""
        return self.learner.weights()

    @torch.no_grad()
    def validate(self, stopped: StopFlag) -> None:
        """Score the validation data; keep the weights where they are the best so far.

        A signal abandons it, and a resumed run begins it again. What cannot be scored ends no training.
        """
        began_s = time.monotonic()
        scores: dict[str, float] = {}
        about: dict[str, Any] = {}
        if self.validation and self.team.leads:
            # A second network on the same tensors: the first stays in training.
            twin = plan_model(self.config)
            twin.load_state_dict(self.weights(), assign=True)
            try:
                scored = self.validation.score(twin, self.device, stopped)
                if scored is None:
                    return
                scores, about = scored
            except (LowlightError, MemoryError, torch.OutOfMemoryError) as error:
                logger.warning("step %d cannot be validated: %s", self.step, error)
                self._append({"validation_error": str(error)})
        self.validated_at = self.step
        if not scores:
            return
        self.scores = scores
        seconds = round(time.monotonic() - began_s, 2)
        self._append({"validation": scores, self.validation.noun: len(self.validation), "seconds": seconds})
        logger.info("step %d: %s", self.step, ", ".join(f"{key} {value:.4f}" for key, value in scores.items()))
        if self.judged_on not in (None, about):
            self.best = None  # of other things, which may be harder or easier
        self.judged_on = about
        decisive = self.validation.decisive(scores)
        if decisive and self._is_better(scores[decisive]):
            self.best = scores[decisive]
            self.files.write(BEST, self.weights(), self._reached(), {**scores, **about})

    def _is_better(self, value: float) -> bool:
        """Whether a number that decides is better than the best so far."""
        if self.best is None or not math.isfinite(self.best):
            return math.isfinite(value)
        return value > self.best if self.validation.highest else value < self.best

    def save(self) -> None:
        """Write the resume state, the last weights and the loss curves."""
        if not self.team.leads:
            return
        state: dict[str, Any] = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "skipped": self.skipped,
            "best": self.best,
            "judged_on": self.judged_on,
            "validated_at": self.validated_at,
            "scores": self.scores,
            "window": self.window,
            "data": self.source.describe(),
            **self.learner.state(),
        }
        save_state(self.folder / STATE, state)
        self.files.write(LAST, self.weights(), self._reached())
        if picture := curves_svg(self.log.rows()):
            write_text(self.folder / CURVES, picture)

    def restore_state(self, state: dict[str, Any]) -> None:
        """Go on where a saved state stands."""
        if not same_data(state.get("data", {}), self.source.describe()):
            raise ConfigError(
                f"the run in {self.folder} was trained from other data than {self.config.data.path}; "
                "give it the same photos, or begin a new run with --start-from"
            )
        try:
            self.learner.load_state(state)
            self.step, self.skipped = int(state["step"]), int(state["skipped"])
            self.elapsed_s = float(state["elapsed_s"])
            best = state["best"] if "best" in state else state["best_psnr"]  # as it was called before
            self.best = None if best is None else float(best)
            # States from before these keys were written right in front of a validation.
            self.validated_at = int(state.get("validated_at", self.step))
            self.scores, self.judged_on = (_dict_of(state.get(name)) for name in ("scores", "judged_on"))
            self.window = [dict(losses) for losses in state.get("window", [])]
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise WeightsError(f"{self.folder / STATE} does not fit this run; start the run anew") from error
        # A killed run may have found better weights after its last state.
        recorded = self._recorded()
        if recorded and (recorded[1] != self.judged_on or self._is_better(recorded[0])):
            self.best, self.judged_on = recorded

    def _log_window(self, waiting: float) -> None:
        row: dict[str, Any] = {"skipped": self.skipped, "data_share": round(waiting, 4)}
        for name in self.window[0] if self.window else ():
            row[name] = sum(entry[name] for entry in self.window) / len(self.window)
        row["rate"] = self.learner.rate
        self._append(row)
        self.window = []

    def _append(self, row: dict[str, Any]) -> None:
        if not self.team.leads:
            return
        row = {"step": self.step, "elapsed_s": round(self.elapsed_s, 2), **row}
        self.log.append(row)
        if self.board:
            self.board.add(row)

    def _recorded(self) -> tuple[float, dict[str, Any]] | None:
        """The number that made the best weights in the folder the best, and of what; None where it has none."""
        try:
            scores = read_header(self.folder / BEST)["scores"]["validation"]
            about = {key: scores[key] for key in (self.validation.noun, *PAIR_LIST) if key in scores}
            return float(scores[self.validation.decisive(scores)]), about
        except (WeightsError, KeyError, TypeError, StopIteration):
            return None


def _dict_of(value: Any) -> dict[str, Any] | None:
    return None if value is None else dict(value)
