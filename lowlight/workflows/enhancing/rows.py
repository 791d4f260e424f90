"""What a run says about each photo: one flat row of plain values."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from lowlight.core.errors import LowlightError
from lowlight.workflows.enhancing.inputs import Photo

logger = logging.getLogger(__name__)

Row = dict[str, Any]


class Job(NamedTuple):
    """A photo and where its picture goes."""

    photo: Photo
    output: Path


def make_row(job: Job, status: str, **known: Any) -> Row:
    """A row with all its keys; what is not given is None."""
    unknown = dict.fromkeys(("ratio", "ratio_source", "batch", "width", "height", "seconds"))
    output = None if job.photo.problem else str(job.output)
    row: Row = {"file": str(job.photo.path), "output": output, "status": status}
    return {**row, **unknown, "notes": [], "error": None, **known}


def failed_row(job: Job, error: BaseException) -> Row:
    """The row of a photo that failed, with a sentence that says why."""
    text, name = str(error) or type(error).__name__, job.photo.path.name
    if isinstance(error, MemoryError):
        text = f"{name} needs more memory than there is; try --batch 1, --jobs 1 or a --crop"
    elif not isinstance(error, LowlightError):
        logger.debug("%s failed", job.photo.path, exc_info=error)
        text = f"{name} failed: {text}"
    return make_row(job, "failed", error=text)


def batch_note(used: int, asked: int) -> list[str]:
    """What to say where fewer tiles than asked for fitted into memory."""
    return [f"Memory ran out with {asked} tiles at a time; {used} were used."] if used < asked else []
