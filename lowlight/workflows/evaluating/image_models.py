"""One call of `lowlight eval` on networks that read or make finished pictures of one size, such as digits."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowlight.checkpoint import (
    EPOCH,
    LAST,
    RUN_FILES,
    load_weights,
    matching_files,
    read_header,
    weights_file,
)
from lowlight.core.atomic import write_text
from lowlight.core.compute import choose_device
from lowlight.core.config import from_dict
from lowlight.core.errors import OutputError, UsageError, WeightsError
from lowlight.core.hashing import file_sha256
from lowlight.core.photo import Picture
from lowlight.data import DATASETS
from lowlight.models import MODELS, current_name
from lowlight.report.tables import Table
from lowlight.workflows.evaluating.repair_figures import Compared
from lowlight.workflows.evaluating.scorers import Figure, Scorer, find_scorer
from lowlight.workflows.training_log import LOG
from lowlight.writers import WriterOptions, write_picture

FORMER_DATASET = "digits"  # of files that do not name theirs


@dataclass(frozen=True)
class Loaded:
    """A network from a weights file, the file's header, and how such networks are scored."""

    path: Path
    model: nn.Module
    header: dict[str, Any]
    scorer: Scorer

    @property
    def trained(self) -> dict[str, Any]:
        """What the header says of the training."""
        found: dict[str, Any] = self.header.get("trained", {})
        return found

    @property
    def dataset(self) -> str:
        """The dataset that trained it."""
        return str(self.trained.get("dataset", FORMER_DATASET))

    @property
    def options(self) -> dict[str, Any]:
        """The options of that dataset."""
        found: dict[str, Any] = self.trained.get("dataset_options", {})
        return found

    def configured(self) -> Any:
        """These options as that dataset's configuration."""
        return from_dict(DATASETS[self.dataset].config, self.options, f"options of dataset {self.dataset}")


def expand_patterns(named: Sequence[Path]) -> tuple[Path, ...]:
    """Put the files that a pattern with `*`, `?` or `[...]` matches in its place; other names stay."""
    return tuple(path for name in named for path in matching_files(name))


def are_image_weights(named: Sequence[Path]) -> bool:
    """Whether weights files, or runs' folders, hold networks on finished pictures; a mixture is refused."""
    kinds = {path: _kind(path) for path in named}
    if "image" not in kinds.values():
        return False
    for path, kind in kinds.items():
        if kind != "image":
            raise UsageError(f"{path} is about RAW photos and other weights are not; score them apart")
    return True


def evaluate_images(
    weights: Sequence[Path],
    data: Path,
    *,
    seed: int = 0,
    splits: Sequence[str] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Score weights files, or runs' folders, in fp32; one row each. Without `splits` their scorer says which.

    A row has `model`, `name`, `preset`, `parameters`, `images` (counts) and a dictionary of scores for each of the
    splits, `measure` (the score that decides), `published` where there are published numbers, `trained`, `chosen`
    (whether the weights are the best of several on the validation images), `weights_sha256` and, of some datasets,
    `about` (what else should be told of what was scored). `progress` hears how many images of all are scored.
    """
    place = choose_device(device)
    opened: dict[tuple[str, str, str], Any] = {}
    networks = []
    for name, loaded in zip(names_of(weights), [load_scored(path) for path in weights], strict=True):
        options = loaded.configured()
        scored = _checked(splits or loaded.scorer.splits, loaded.scorer)
        keys = {split: (loaded.dataset, json.dumps(loaded.options, sort_keys=True), split) for split in scored}
        for split, key in keys.items():
            if key not in opened:
                opened[key] = loaded.scorer.open(data, options, split)
        networks.append((name, loaded, keys))
    done, total = 0, sum(len(opened[key]) for _, _, keys in networks for key in keys.values())

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    rows = []
    for name, loaded, keys in networks:
        trained, dataset, model = loaded.trained, loaded.dataset, loaded.model.to(place)
        with torch.no_grad():
            scores = {
                split: _score(loaded.scorer, model, opened[key], place, seed, tick) for split, key in keys.items()
            }
        published = loaded.scorer.published(model)
        first = next(iter(keys))
        about = loaded.scorer.about(opened[keys[first]])
        rows.append(
            {
                "name": name,
                "model": loaded.header["model"],
                "preset": trained.get("preset"),
                "dataset": dataset,
                "title": loaded.scorer.title,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "data": data.resolve().name,
                "images": {split: len(opened[key]) for split, key in keys.items()},
                "measure": loaded.scorer.decisive(scores[first]),
                **scores,
                "seed": seed,
                "trained": trained,
                "chosen": bool(loaded.header.get("scores", {}).get("validation")),
                "weights_sha256": file_sha256(loaded.path),
                **({"published": published} if published else {}),
                **({"about": about} if about else {}),
            }
        )
    return rows


def _score(
    scorer: Scorer, model: nn.Module, opened: Any, device: torch.device, seed: int, tick: Callable[[int], None]
) -> dict[str, float]:
    if scorer.ticks:
        return scorer.score(model, opened, device, seed, tick)
    scores = scorer.score(model, opened, device, seed)
    tick(len(opened))
    return scores


def tables_of(rows: Sequence[dict[str, Any]]) -> tuple[list[Table], list[dict[str, Any]]]:
    """Tables of the rows whose dataset has its own, and the other rows."""
    tables: list[Table] = []
    others = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        alike = [row for row in rows if row["dataset"] == dataset]
        own = find_scorer(dataset).tables
        if own is None:
            others += alike
        else:
            tables += own(alike)
    return tables, others


def check_figures(weights: Sequence[Path], folder: Path) -> None:
    """Refuse weights whose figures would share names or do not exist, and a file in the folder's place."""
    names = names_of(weights)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two of the weights are called {name!r}, and so would be their figures; draw them apart")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder for the figures")
    for path in weights:
        scorer = _scorer_of(read_header(weights_file(path)))
        if scorer.comparison is None and scorer.figures is None:
            raise UsageError(f"there are no figures of networks such as {path}; leave out --figures")


def draw_figures(weights: Sequence[Path], data: Path, folder: Path, *, seed: int = 0) -> list[Path]:
    """Draw what fits each of the weights files, or runs' folders, into `folder`; the written files are returned."""
    check_figures(weights, folder)
    written = []
    compared: dict[str, list[Compared]] = {}
    for name, path in zip(names_of(weights), weights, strict=True):
        loaded = load_scored(path)
        if loaded.scorer.comparison is not None:
            network = Compared(name, loaded.model, loaded.configured(), loaded.path.parent)
            compared.setdefault(loaded.dataset, []).append(network)
            continue
        assert loaded.scorer.figures is not None
        figures = loaded.scorer.figures(loaded.model, data, loaded.configured(), name, seed)
        written += [_write_figure(folder, f"{name}-{kind}", figure) for kind, figure in figures.items()]
    for dataset, networks in compared.items():
        comparison = find_scorer(dataset).comparison
        assert comparison is not None
        figures = comparison(networks, data, seed)
        written += [_write_figure(folder, name, figure) for name, figure in figures.items()]
    return written


def _write_figure(folder: Path, name: str, figure: Figure) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(figure, str):
        target = folder / f"{name}.png"
        write_picture(target, Picture(figure), WriterOptions(bits=8))
        return target
    target = folder / f"{name}.svg"
    write_text(target, figure)
    return target


def _checked(splits: Sequence[str], scorer: Scorer) -> Sequence[str]:
    """The splits themselves; `UsageError` where one of them is not there."""
    known = list(dict.fromkeys(("train", "validation", *scorer.splits)))
    for split in splits:
        if split not in known:
            *names, last = (name.replace("validation", "val") for name in known)
            raise UsageError(f"there is no split {split!r} of these pictures; there are {', '.join(names)} and {last}")
    return splits


def _kind(path: Path) -> str | None:
    """The kind of a file's network, None where there is no such file (a shipped model's name, a pattern)."""
    files = [path / name for name in RUN_FILES] if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            name = current_name(read_header(file)["model"])
            return None if name is None else MODELS[name].kind
    return None


def load_scored(path: Path) -> Loaded:
    """Load the weights that a file, or a run's folder, is scored by; `WeightsError` where the posterior is missing."""
    file = weights_file(path)
    model, header = load_weights(file)
    scorer = _scorer_of(header)
    if not header.get("posterior") and hasattr(model, "encoder"):
        raise WeightsError(f"{file} lacks the encoder, which its scores need; train with run.keep_posterior = true")
    return Loaded(file, model, header, scorer)


def files_read(weights: Sequence[Path], data: Path) -> list[Path]:
    """What scoring and drawing read: the data, the weights files, and the logs of their runs."""
    files = [weights_file(path) for path in weights]
    return [data, *files, *(file.parent / LOG for file in files)]


def _scorer_of(header: dict[str, Any]) -> Scorer:
    return find_scorer(header.get("trained", {}).get("dataset", FORMER_DATASET))


def names_of(weights: Sequence[Path]) -> list[str]:
    """What rows and figures of weights files, or runs' folders, are called."""
    return [_name(path) for path in weights]


def _name(path: Path) -> str:
    """What rows and figures are called after: the folder of a run, with the file if it is not the best, or the file."""
    path = path.resolve()
    if path.is_dir():
        return path.name
    if path.name == LAST or EPOCH.fullmatch(path.name):
        return f"{path.parent.name}-{path.stem}"
    return path.parent.name if path.name in RUN_FILES else path.stem
