"""Several processes that score as one: each takes its pairs, and the first puts the reports together.

`torchrun -m lowlight eval ...` starts them; each has a CUDA device of its own where there are some.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from lowlight.core.errors import UsageError
from lowlight.data.pairs import Pair
from lowlight.metrics.histogram import jensen_shannon
from lowlight.report.statistics import mean_row, statistics
from lowlight.workflows.evaluating.evaluate import Progress, Report, evaluate_methods
from lowlight.workflows.evaluating.methods import EvaluateOptions
from lowlight.workflows.evaluating.pair_lists import PairList
from lowlight.workflows.evaluating.previews import PreviewBook
from lowlight.workflows.evaluating.scoring import Pixels
from lowlight.workflows.team import Team, join_team


def evaluate_together(
    pairs: PairList,
    several: Sequence[EvaluateOptions],
    progress: Progress | None = None,
    book: PreviewBook | None = None,
) -> list[Report] | None:
    """What `evaluate_methods` gives, with the pairs dealt out to all processes; None in all but the first.

    Rows are in the order of `pairs`, whoever scored them, and `book` has the pictures of all. `progress` hears of
    this process's pairs alone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        return evaluate_methods(pairs, several, progress, book)
    if len(pairs.rows) < size:
        raise UsageError(f"{len(pairs.rows)} pairs cannot be shared by {size} processes; start fewer")
    with join_team(several[0].device, len(pairs.rows)) as team:
        mine = pairs.part(team.rank, size)
        placed = [replace(each, device=str(team.device)) for each in several]

        def witness(index: int, pair: Pair, pictures: dict[str, Pixels]) -> None:
            if book:
                book(team.rank + index * size, pair, pictures)

        reports = evaluate_methods(mine, placed, progress, witness if book else None)
        found = _gathered((reports, book.photos if book else []), team)
    if found is None:
        return None
    if book:
        book.photos = sorted((photo for _, photos in found for photo in photos), key=lambda photo: photo.index)
    return [join_reports(parts) for parts in zip(*(reports for reports, _ in found), strict=True)]


def join_reports(parts: Sequence[Report]) -> Report:
    """Put one method's reports on every n-th pair into its report on all; pairs were dealt out in turn."""
    count = sum(len(part["rows"]) for part in parts)
    rows = [parts[place % len(parts)]["rows"][place // len(parts)] for place in range(count)]
    numbers = statistics(rows)
    ours, theirs = (
        torch.tensor([part["statistics"]["luminance"][side] for part in parts]).sum(0)
        for side in ("pictures", "truths")
    )
    numbers["luminance"] = {
        "jsd": jensen_shannon(ours, theirs) if int(ours.sum()) else None,
        "pictures": ours.tolist(),
        "truths": theirs.tolist(),
    }
    settings = {**parts[0]["settings"], "processes": len(parts)}
    return {"rows": rows, "mean": mean_row(rows), "settings": settings, "statistics": numbers}


def _gathered(value: Any, team: Team) -> list[Any] | None:
    """The values of all processes in the first, None in the others."""
    found: list[Any] | None = [None] * team.size if team.leads else None
    # Python objects travel between CPUs, also where the processes compute on CUDA.
    dist.gather_object(value, found, group=dist.new_group(backend="gloo"))
    return found
