"""Training: resolve, show, save, run.

A batch depends on the seed and the step alone, and so do the noise of the objective and dropout. With a number of
steps as the budget, an interrupted and resumed run is therefore the same as an uninterrupted one.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lowlight.checkpoint import BEST, EPOCH, LAST, load_state
from lowlight.core.atomic import leftover_of, remove_leftovers, replacing
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.config import read_toml, to_dict, to_toml
from lowlight.core.errors import ConfigError, InterruptedRunError
from lowlight.core.folders import check_writable, make_folder, working_alone
from lowlight.workflows.stopping import stop_on_signal
from lowlight.workflows.team import Team, join_team
from lowlight.workflows.training.config import TrainConfig, first_difference, load_config, resolve
from lowlight.workflows.training.parts import epoch_steps, open_source, plan_model
from lowlight.workflows.training.run import CURVES, STATE, Run, Watcher
from lowlight.workflows.training.validating import open_validation_of
from lowlight.workflows.training.weights_files import epoch_files
from lowlight.workflows.training_log import LOG

logger = logging.getLogger(__name__)

CONFIG = "config.toml"


def train(config: TrainConfig, folder: Path, *, resume: bool = False, watch: Watcher | None = None) -> Path:
    """Run a training into `folder` and return its best weights file (the last one without validation).

    Kept there: `config.toml`, `log.jsonl`, `curves.svg`, `best.safetensors`, `last.safetensors`, the last epochs'
    `epoch-N.safetensors` where asked for, and `state.pt`. With `resume` a run goes on from `state.pt`, or begins where
    there is none yet. SIGINT and SIGTERM end it after the current step, with the state saved, by raising
    `InterruptedRunError`. `watch` is told after every step where the run stands. Started by torchrun, the processes
    share each batch; all must see the folder.
    """
    with join_team(config.run.device, config.optimiser.batch) as team:
        return _train_with(team, config, folder, resume, watch if team.leads else None)


def _train_with(team: Team, config: TrainConfig, folder: Path, resume: bool, watch: Watcher | None) -> Path:
    if not team.leads:
        return _run_in(team, config, folder, resume, watch)
    check_writable(folder)
    made = not folder.exists()
    make_folder(folder)
    with working_alone(folder):
        try:
            return _run_in(team, config, folder, resume, watch)
        finally:
            if made:
                with suppress(OSError):
                    folder.rmdir()  # if nothing has come of it


def _run_in(team: Team, config: TrainConfig, folder: Path, resume: bool, watch: Watcher | None) -> Path:
    state = _open_folder(config, folder, resume)
    run = Run(config, folder, fresh=state is None, team=team)
    if state is not None:
        run.restore_state(state)
        logger.info("going on from step %d", run.step)
    # Nobody changes the folder before everybody has read it.
    ahead, behind = team.largest(run.step, -run.step)
    if ahead != -behind:
        raise ConfigError(
            f"the processes go on from different steps of {folder}; it must be one folder for all of them"
        )
    if team.leads:
        remove_leftovers(_written_in(folder))
        run.log.keep_until(run.step)
        _write_config(config, folder)
    begun = run.step
    with stop_on_signal() as stopped:
        run.loop(stopped, watch)
    if stopped:
        raise InterruptedRunError(f"stopped at step {run.step}, all is saved in {folder}; go on with --resume")
    if state is not None and run.step == begun and team.leads:
        logger.warning("%s has had its %s already; name more to go on", folder, config.run.budget)
    best = folder / BEST
    return best if best.exists() else folder / LAST


def _written_in(folder: Path) -> list[Path]:
    """The files that a run writes into its folder under temporary names, epochs' only where one was left unfinished."""
    unfinished = (leftover_of(path) or "" for path in folder.glob(".epoch-*.part"))
    epochs = [name for name in unfinished if EPOCH.fullmatch(name)]
    return [folder / name for name in (STATE, LAST, BEST, CURVES, CONFIG, LOG, *epochs)]


def saved_config(folder: Path) -> Path | None:
    """Where the run in `folder` keeps its configuration, None where there is no run."""
    path = folder / CONFIG
    return path if path.is_file() else None


@dataclass(frozen=True)
class Summary:
    """What a run would be, without running it."""

    model: str
    parameters: int  # that are trained
    items: int
    noun: str  # of the items: photos or images
    epoch_steps: int
    validation: int  # how many things validate
    validation_noun: str  # of them: pairs or images
    device: str
    precision: str

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.parameters / 1e6:.2f} M parameters, {self.items} {self.noun}, "
            f"{self.epoch_steps} steps an epoch, {self.validation} validation {self.validation_noun}, "
            f"{self.device}, {self.precision}"
        )


def summarise(config: TrainConfig) -> Summary:
    """Look at all that a run needs, so that what is missing is said at once; nothing is computed or written."""
    device = choose_device(config.run.device)
    precision = choose_precision(config.run.precision, device)
    model = plan_model(config)
    source = open_source(config, model, torch.device("cpu"))
    about, validation = source.describe(), open_validation_of(config)
    noun = next((each for each in ("images", "drawn") if each in about), "photos")
    return Summary(
        model=config.model.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        items=int(about.get(noun, 0)),
        noun="drawn pictures" if noun == "drawn" else noun,
        epoch_steps=epoch_steps(source, config.optimiser.batch),
        validation=len(validation),
        validation_noun=validation.noun,
        device=str(device),
        precision=str(precision).removeprefix("torch."),
    )


def _open_folder(config: TrainConfig, folder: Path, resume: bool) -> dict[str, Any] | None:
    """The state to go on from, None for a run that begins; refuses what would spoil another run."""
    if not resume:
        _refuse_used(folder)
    if not (resume and (folder / STATE).exists()):
        return None
    if saved := saved_config(folder):
        difference = first_difference(resolve(read_toml(saved)), config)
        if difference:
            raise ConfigError(
                f"{folder} cannot be resumed with another configuration: {difference}; "
                "leave it as it was, or begin a new run with --start-from"
            )
    return load_state(folder / STATE)


def _refuse_used(folder: Path) -> None:
    if any((folder / name).exists() for name in (STATE, BEST, LAST)) or epoch_files(folder):
        raise ConfigError(f"{folder} holds a run already; go on with --resume, or choose another folder")
    for name in (CONFIG, LOG):
        if (folder / name).exists():
            raise ConfigError(
                f"{folder} holds no run but a {name}, which would be replaced; choose another folder, or --resume if a "
                "run that ended early has left it"
            )


def _write_config(config: TrainConfig, folder: Path) -> None:
    with replacing(folder / CONFIG) as temporary:
        # A path may hold bytes that are no UTF-8; `read_toml` takes them as they are.
        temporary.write_text(to_toml(to_dict(config)), encoding="utf-8", errors="surrogateescape")


__all__ = ["Summary", "load_config", "saved_config", "summarise", "train"]
