"""Preparing folders of small pictures once, so that training reads one file."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowlight.core.config import from_dict
from lowlight.core.errors import DataError, UsageError
from lowlight.data.fusion_celeba import FusionCelebaConfig, plan_fusion_celeba
from lowlight.data.fusion_tless import FusionTlessConfig, plan_fusion_tless
from lowlight.data.prepared import Plan, Progress, check_name
from lowlight.workflows.pairing.cache_options import SPARE_BYTES, size_in_words


@dataclass(frozen=True)
class Entry:
    """A set that can be prepared: its configuration class, which of its options decide what is stored, and its plan."""

    config: type[Any]
    options: tuple[str, ...]
    plan: Callable[[Path, Any, int | None], Plan]


PREPARED: dict[str, Entry] = {
    "fusion-celeba": Entry(FusionCelebaConfig, (), lambda folder, _, limit: plan_fusion_celeba(folder, limit)),
    "fusion-tless": Entry(
        FusionTlessConfig, ("classes", "training_occluders", "validation_occluders", "occluder_px"), plan_fusion_tless
    ),
}


@dataclass(frozen=True)
class Forecast:
    """What preparing will take."""

    pictures: int  # that are read
    bytes: int  # of the file, at most
    free_bytes: int  # of the disk it goes to


@dataclass(frozen=True)
class PreparedSet:
    """A file that was made, and the number of items of each of its arrays."""

    path: Path
    counts: dict[str, int]
    bytes: int


def prepare_set(
    name: str,
    folder: Path,
    target: Path,
    options: dict[str, Any] | None = None,
    limit: int | None = None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    announce: Callable[[Forecast], None] | None = None,
    progress: Progress | None = None,
) -> PreparedSet | None:
    """Write the pictures of a set's folder into `target`, an `.npz` file that training reads in their place.

    `options` are those of the set's configuration; one that is without effect here raises `UsageError`. `limit` is
    the most pictures of each part, or of each class. `announce` is told the forecast before any picture is read;
    a dry run ends there. Raises `DataError` where the folder or the disk does not do.
    """
    entry, options = PREPARED[name], options or {}
    config = from_dict(entry.config, options, f"the options of {name}")
    if idle := sorted(set(options) - set(entry.options)):
        known = f"only {', '.join(entry.options)} are" if entry.options else "nothing is"
        raise UsageError(f"{idle[0]} is chosen when training starts; {known} decided when {name} is prepared")
    check_name(target)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; give the file to be written a name of its own")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists already; choose another name, or --overwrite")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the one with the pictures of {name}, unpacked")
    plan = entry.plan(folder, config, limit)
    forecast = Forecast(plan.pictures, plan.bytes, shutil.disk_usage(_existing(target)).free)
    if announce:
        announce(forecast)
    if forecast.bytes + SPARE_BYTES > forecast.free_bytes:
        raise DataError(
            f"{target} would take {size_in_words(forecast.bytes)}, but its disk has "
            f"{size_in_words(forecast.free_bytes)} free; choose another disk, or --limit"
        )
    if dry_run:
        return None
    counts = plan.write(target, progress)
    return PreparedSet(target, counts, target.stat().st_size)


def _existing(path: Path) -> Path:
    """The nearest folder above a path that is there already."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())
