"""How networks on finished pictures are scored, by the dataset that trained them. To add one: add its entry.

Networks on RAW frames have no entry: they are scored on pairs, through the restorer.
"""

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import UsageError
from lowlight.report.tables import Table
from lowlight.workflows.evaluating.digit_figures import digit_figures
from lowlight.workflows.evaluating.digit_scores import open_scored_digits, published_digits, score_digits
from lowlight.workflows.evaluating.face_figures import face_figures
from lowlight.workflows.evaluating.face_scores import ScoredFaces, score_opened_faces
from lowlight.workflows.evaluating.fusion_scorer import fusion_figures, open_scored_fusion, score_fused
from lowlight.workflows.evaluating.repair_figures import Compared, repair_figures
from lowlight.workflows.evaluating.repair_scores import about_repairs, open_repairs, repair_tables, score_repair

Figure = str | npt.NDArray[np.uint16]  # an SVG, or the pixels [H, W, C] of a picture


def _none(model: Any) -> None:
    return None


def _nothing(opened: Any) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Scorer:
    """How to open what is scored, how to score it, and which number decides what the best weights are.

    `open(path, options, split)` with split `train`, `validation` or one more of `splits` gives anything that has a
    length, and says at once what is missing; `options` is the dataset's configuration. `splits` are scored where none
    is asked for, the one that is to be reported first. `score(model, opened, device, seed)` gives numbers by name; of
    one that `ticks`, a fifth argument hears how many images more are scored. The first name of `decides` among them
    decides. `published(model)` gives the published numbers beside them, by split,
    or None; `about(opened)` more that a row should tell. `tables(rows)` shows the rows where the usual table would
    not do. `figures(model, path, options, title, seed)` gives pictures by name; `comparison(networks, path, seed)`
    those in which several networks stand side by side.
    """

    open: Callable[[Path, Any, Any], Sized]
    score: Callable[..., dict[str, float]]
    decides: tuple[str, ...]
    highest: bool  # whether larger is better
    title: str
    published: Callable[[Any], dict[str, Any] | None] = _none
    splits: tuple[str, ...] = ("validation", "train")
    ticks: bool = False
    about: Callable[[Any], dict[str, str]] = _nothing
    tables: Callable[[Sequence[dict[str, Any]]], list[Table]] | None = None
    figures: Callable[[Any, Path, Any, str, int], dict[str, Figure]] | None = None
    comparison: Callable[[Sequence[Compared], Path, int], dict[str, Figure]] | None = None

    def decisive(self, scores: dict[str, float]) -> str:
        """Give the name of the number that decides."""
        return next(name for name in self.decides if name in scores)


def _fusion() -> Scorer:
    return Scorer(
        open=open_scored_fusion,
        score=score_fused,
        decides=("mse_min",),
        highest=False,
        title="Squared error of the best of ten samples, and bits per dimension",
        figures=fusion_figures,
    )


SCORERS: dict[str, Scorer] = {
    "digits": Scorer(
        open=open_scored_digits,
        score=score_digits,
        decides=("sse", "l1"),
        highest=False,
        title="Errors per image: SSE of the mean of ten samples, or L1 over ten corruptions",
        published=published_digits,
        ticks=True,
        figures=digit_figures,
    ),
    "repair": Scorer(
        open=open_repairs,
        score=score_repair,
        decides=("mse",),
        highest=False,
        title="Repaired digits",
        splits=("test", "validation"),
        about=about_repairs,
        tables=repair_tables,
        comparison=repair_figures,
    ),
    "faces": Scorer(
        open=ScoredFaces,
        score=score_opened_faces,
        decides=("rmse_mean",),
        highest=False,
        title="Faces: RMSE of reconstructions (0 to 255), and of edits that take off glasses",
        figures=face_figures,
    ),
    "fusion-mnist": _fusion(),
    "shapes-fusion": _fusion(),
    "fusion-celeba": _fusion(),
    "fusion-tless": _fusion(),
}


def find_scorer(dataset: str) -> Scorer:
    """Find how networks trained on a dataset are scored; `UsageError` where there is no way yet."""
    if dataset not in SCORERS:
        raise UsageError(f"networks trained on {dataset!r} cannot be scored; those on {', '.join(SCORERS)} can")
    return SCORERS[dataset]
