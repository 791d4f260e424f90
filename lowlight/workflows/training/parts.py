"""The parts of a training run, made from its configuration."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowlight.checkpoint import load_weights, weights_file
from lowlight.core.config import from_dict, to_dict
from lowlight.core.errors import ConfigError, DataError
from lowlight.data import DATASETS, Source
from lowlight.data.cache import is_cache, open_cache
from lowlight.data.packed_set import packed_pair_readers
from lowlight.data.pairs import Pair, load_pair, validation_rows
from lowlight.data.sid import open_pairs
from lowlight.models import build_model, current_name, model_config
from lowlight.objectives import build_objective
from lowlight.raw.levels import Levels
from lowlight.workflows.training.config import TrainConfig

logger = logging.getLogger(__name__)

ENCODER = "encoder"  # the posterior's part of a network


def fresh_model(config: TrainConfig, *, start: bool) -> nn.Module:
    """Build the network of a run, in fp32 on the CPU; with `start` from the weights the run starts from, if any.

    An objective that does not train the posterior gets a network without its encoder.
    """
    options = model_config(config.model.name, config.model.options)
    model = build_model(config.model.name, options, config.run.seed)
    if start and config.model.start_from:
        _start_from(model, options, config.model.start_from)
    return _fit_to_objective(model, config)


def plan_model(config: TrainConfig) -> nn.Module:
    """Build the network of a run on the `meta` device: its shapes without its numbers."""
    with torch.device("meta"):
        model = build_model(config.model.name, model_config(config.model.name, config.model.options))
    return _fit_to_objective(model, config)


def open_source(config: TrainConfig, model: nn.Module, device: torch.device) -> Source:
    """Open the training data of a run; batches are made on `device`."""
    entry = DATASETS[config.data.name]
    options = from_dict(entry.config, config.data.options, f"options of dataset {config.data.name}")
    return entry.build(config.data.path, model.traits, options, config.optimiser.batch, config.run.seed, device)


def epoch_steps(source: Source, batch: int) -> int:
    """Count the steps of an epoch: until every scene of real pairs, or as many items as there are photos, trained."""
    known: int | None = getattr(source, "steps_per_epoch", None)
    return known or max(-(-int(source.describe().get("photos", 1)) // batch), 1)


def open_validation(path: Path | None, levels: Levels | None = None) -> list[Callable[[], Pair]]:
    """Find the validation pairs of a manifest, SID folder, cache or packed file; each is read when it is scored.

    Dark RAW files have their own `levels` or these; a cache and a packed file keep theirs.

    It is the validation split where there is one, see `validation_rows`. Files that are not there are refused at once,
    not after the first thousand steps.
    """
    if path is None:
        return []
    if is_cache(path):
        cache = open_cache(path)
        cache = cache.only(validation_rows(cache.rows))
        return [partial(cache.pair, index) for index in range(len(cache.rows))]
    if not path.is_dir() and path.suffix.lower() != ".csv":
        return packed_pair_readers(path)
    rows = open_pairs(path, "val") if path.is_dir() else validation_rows(open_pairs(path))
    for row in rows:
        for file in (row.dark, row.bright):
            if not file.is_file():
                raise DataError(f"{path} names {file}, which does not exist; correct the manifest")
    return [partial(load_pair, row, levels) for row in rows]


def own_validation(path: Path, levels: Levels | None = None) -> list[Callable[[], Pair]]:
    """The validation split of real pairs that train, as `open_validation` gives it; empty where there is none.

    Nor is there one whose files were not brought along, as those of a set that was fetched in part.
    """
    if is_cache(path):
        cache = open_cache(path)
        mine = cache.only([row for row in cache.rows if row.split == "val"])
        return [partial(mine.pair, index) for index in range(len(mine.rows))]
    try:
        rows = open_pairs(path, "val")
    except DataError:  # no row is of that split, or its list is missing
        return []
    missing = sum(not file.is_file() for row in rows for file in (row.dark, row.bright))
    if missing:
        logger.warning("%d files of the validation split of %s are not there, so nothing validates", missing, path)
        return []
    return [partial(load_pair, row, levels) for row in rows]


def same_data(saved: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether two descriptions are of the same data; what only one of them tells, as an older one may, is no matter."""
    told = saved.keys() & found.keys()
    if "sha256" in told:
        told -= {"name"}  # the folder's, which may have moved
    return all(saved[key] == found[key] for key in told)


def _fit_to_objective(model: nn.Module, config: TrainConfig) -> nn.Module:
    if not build_objective(config.objective.name, config.objective.options).uses_posterior:
        model.register_module(ENCODER, None)
    return model


def _start_from(model: nn.Module, options: Any, path: Path) -> None:
    """Take the weights of a file, or a run's, into a fresh network; an encoder they lack stays as it was drawn."""
    other, header = load_weights(weights_file(path))
    theirs = model_config(current_name(header["model"]) or "", header["config"])
    if type(theirs) is not type(options):
        raise ConfigError(f"{path} is for model {header['model']}, another network than this run's")
    ours, found = to_dict(options), to_dict(theirs)
    for key in ours:
        # How a network was first drawn does not matter to one that has been trained.
        if key != "init" and found.get(key) != ours[key]:
            raise ConfigError(
                f"{path} has {key} {found.get(key)!r} and this run's model {ours[key]!r}; start from matching weights"
            )
    model.load_state_dict(other.state_dict(), strict=False)
