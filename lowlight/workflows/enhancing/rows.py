"""What a run says about each photo: one flat row of plain values."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from lowlight.core.errors import LowlightError
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.workflows.enhancing.scenes import Scene

logger = logging.getLogger(__name__)

EXISTS = "the output exists already"
Row = dict[str, Any]


class Job(NamedTuple):
    """A scene, where its picture goes, and where what is written beside it goes: samples, and last their spread."""

    scene: Scene
    output: Path
    beside: tuple[Path, ...] = ()

    @property
    def photo(self) -> Photo:
        """The photo that names the picture."""
        return self.scene.first


def make_row(job: Job, status: str, **known: Any) -> Row:
    """A row with all its keys; what is not given is None."""
    unknown = dict.fromkeys(("ratio", "ratio_source", "batch", "width", "height", "seconds"))
    output = None if job.photo.problem else str(job.output)
    beside = [] if job.photo.problem else [str(path) for path in job.beside]
    row: Row = {"file": str(job.photo.path), "frames": job.scene.names, "output": output, "samples": beside}
    return {**row, "status": status, **unknown, "notes": list(job.scene.notes), "error": None, **known}


def failed_row(job: Job, error: BaseException) -> Row:
    """The row of a photo that failed, with a sentence that says why."""
    logger.debug("%s failed", job.photo.path, exc_info=error)
    text, name = str(error) or type(error).__name__, job.photo.path.name
    if isinstance(error, MemoryError):
        text = f"{name} needs more memory than there is; try --batch 1, --jobs 1 or a --crop"
    elif not isinstance(error, LowlightError):
        text = f"{name} failed: {text}"
    return make_row(job, "failed", error=text)


def batch_note(used: int, asked: int) -> list[str]:
    """What to say where fewer tiles than asked for fitted into memory."""
    return [f"Memory ran out with {asked} tiles at a time; {used} were used."] if used < asked else []


def frames_note(used: int, most: int) -> list[str]:
    """What to say where a network of sets gets more frames than it was made for."""
    return [f"{used} frames were fused, though these weights were made for at most {most}."] if used > most > 1 else []
