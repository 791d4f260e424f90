"""From the weights that are named to the methods that are scored, and which of them are versions of one model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lowlight.checkpoint import find_weights, matching_files, read_header, weights_file
from lowlight.ops.strategies import STRATEGIES, choose_tiling
from lowlight.workflows.evaluating.methods import EvaluateOptions

ALL = "all"


@dataclass(frozen=True)
class WeightsList:
    """Weights files to score, and the indices of those that are versions of one model under the model's name."""

    files: tuple[str | Path | None, ...]
    groups: dict[str, tuple[int, ...]]


def expand_weights(named: Sequence[Path], *, versions: bool = False) -> WeightsList:
    """Find the files of several names; the files that one pattern with `*`, `?` or `[...]` matches are versions.

    With `versions`, files of the same model, configuration and objective are versions too, in whatever folders.
    """
    files: list[str | Path | None] = []
    groups: dict[str, tuple[int, ...]] = {}
    for name in named:
        matches = [weights_file(name)] if name.is_dir() else matching_files(name)
        if len(matches) > 1:
            groups[str(name)] = tuple(range(len(files), len(files) + len(matches)))
        files += matches
    if versions:
        groups = _by_header([find_weights(file) for file in files])
    return WeightsList(tuple(files), groups)


def _by_header(paths: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    groups: dict[str, list[int]] = {}
    titles: dict[str, str] = {}
    for index, path in enumerate(paths):
        header = read_header(path)
        trained = header.get("trained", {})
        key = json.dumps([header["model"], header["config"], *_objective(trained)], sort_keys=True)
        groups.setdefault(key, []).append(index)
        titles[key] = _title(header["model"], trained)
    names = list(titles.values())
    result = {}
    for number, (key, members) in enumerate(groups.items(), start=1):
        title = titles[key] if names.count(titles[key]) == 1 else f"{titles[key]} ({number})"
        result[title] = tuple(members)
    return result


def _objective(trained: dict[str, Any]) -> list[Any]:
    return [trained.get("objective"), trained.get("objective_options")]


def _title(model: str, trained: dict[str, Any]) -> str:
    objective, options = _objective(trained)
    about = [str(objective)] if objective else []
    about += [f"{key} {value}" for key, value in (options or {}).items()]
    return ", ".join([model, *about])


def with_frames(options: EvaluateOptions, counts: Sequence[int]) -> list[EvaluateOptions]:
    """Give the options once for each number of frames to fuse."""
    return [replace(options, frames=count) for count in counts]


def with_strategies(options: EvaluateOptions, names: str) -> list[EvaluateOptions]:
    """Give the options once for each strategy: `all`, or names with commas between them."""
    wanted = list(STRATEGIES) if names == ALL else [name.strip() for name in names.split(",")]
    return [replace(options, tiling=choose_tiling(name), strategy=name, timed=True) for name in wanted]
