"""Writing the page of an evaluation, with the loss curves of the runs that made the weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowlight.core.atomic import write_text
from lowlight.core.errors import DataError, OutputError
from lowlight.report.figures import Curves
from lowlight.report.page import Photo, build_page
from lowlight.report.tables import Report, rows_as_csv, rows_as_jsonl
from lowlight.workflows.training_log import LOG, TrainingLog

PAGE = "index.html"
ROW_FORMATS = {".jsonl": rows_as_jsonl, ".csv": rows_as_csv}


def write_page(
    folder: Path,
    reports: Sequence[Report],
    photos: Sequence[Photo],
    *,
    versions: Sequence[dict[str, Any]] = (),
    curves: Sequence[Curves] = (),
) -> Path:
    """Write `index.html` into the folder, which is made where it is missing; returns the page's path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}.") from error
    write_text(folder / PAGE, build_page(reports, photos, versions=versions, curves=curves))
    return folder / PAGE


def write_rows(path: Path, reports: Sequence[Report]) -> None:
    """Write all rows as JSONL or CSV, by the suffix."""
    write_text(path, ROW_FORMATS[path.suffix.lower()](reports))


def read_curves(runs: Sequence[Path], reports: Sequence[Report]) -> list[Curves]:
    """Read the logs of the named run folders, and of those that hold the scored weights; each once."""
    folders = {folder.resolve(): True for folder in runs}
    for report in reports:
        if report["settings"].get("weights_path"):
            folders.setdefault(Path(report["settings"]["weights_path"]).resolve().parent, False)
    curves = []
    for folder, named in folders.items():
        rows = TrainingLog(folder / LOG).rows()
        if rows:
            curves.append(Curves(folder.name, rows))
        elif named:
            raise DataError(f"{folder} has no training log {LOG}; --run takes the folder of a training run")
    return curves
