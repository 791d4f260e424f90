"""Scoring finished pictures of one folder against those of another, without a model."""

from pathlib import Path
from typing import Any

from lowlight.core.errors import DataError
from lowlight.data.pictures import READERS, read_picture
from lowlight.report.statistics import mean_row
from lowlight.workflows.evaluating.evaluate import Progress
from lowlight.workflows.evaluating.protocols import find_protocol, rounding_rule
from lowlight.workflows.evaluating.scoring import Row, error_in, score, surroundings


def evaluate_pictures(pictures: Path, references: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Score the pictures of one folder against those of another that have the same name, suffixes aside.

    A picture of twice the other's size is compared at the smaller size. What has no partner is listed in the
    report's `unmatched`; other files than pictures and hidden ones are left alone.
    """
    ours, theirs = _by_stem(pictures), _by_stem(references)
    stems = sorted(ours.keys() & theirs.keys())
    if not stems:
        raise DataError(
            f"{pictures} and {references} have no two pictures of one name ({len(ours)} and {len(theirs)} names); "
            "pictures are matched by their names without the suffix"
        )
    rows = []
    for done, stem in enumerate(stems, start=1):
        rows.append(_picture_row(ours[stem], theirs[stem]))
        if progress:
            progress(done, len(stems))
    unmatched = {
        "pictures": [path.name for stem in sorted(ours.keys() - theirs.keys()) for path in ours[stem]],
        "references": [path.name for stem in sorted(theirs.keys() - ours.keys()) for path in theirs[stem]],
    }
    settings = {
        "pictures": str(pictures),
        "references": str(references),
        "rounding": rounding_rule(find_protocol("half")),
        **surroundings(),
    }
    return {"rows": rows, "mean": mean_row(rows), "unmatched": unmatched, "settings": settings}


def _picture_row(pictures: list[Path], references: list[Path]) -> Row:
    row: Row = {"picture": pictures[0].name, "reference": references[0].name}
    with error_in(row):
        for several in (pictures, references):
            if len(several) > 1:
                names = ", ".join(path.name for path in several)
                raise DataError(f"{names} share one name in {several[0].parent}; keep one of them")
        row.update(score(read_picture(pictures[0]), read_picture(references[0])))
    return row


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    found: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in READERS and not path.name.startswith(".") and path.is_file():
            found.setdefault(path.stem, []).append(path)
    return found
