"""From what was named to jobs: which scenes make which files, and which of them are this run's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lowlight.checkpoint import BURST_WEIGHTS
from lowlight.core.errors import UsageError
from lowlight.raw.exif import read_metadata
from lowlight.workflows.enhancing.inputs import Photo, told_times
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.outputs import all_exist, is_file_name, plan_outputs
from lowlight.workflows.enhancing.rows import EXISTS, Job
from lowlight.workflows.enhancing.scenes import Scene
from lowlight.workflows.sharding import Shard, shard
from lowlight.writers import WRITERS, writer_for


def plan_jobs(photos: Sequence[Photo | Scene], options: EnhanceOptions) -> list[Job]:
    """All jobs of a command, in order, with the names of their outputs; of a shard, too, the whole command's.

    Raises `UsageError` where output and format contradict each other or cannot be.
    """
    scenes = [photo if isinstance(photo, Scene) else Scene((photo,)) for photo in photos]
    suffix = options.suffix or ".png"
    if is_file_name(options.out):
        if options.suffix and writer_for(Path("x" + options.suffix)) != writer_for(options.out):
            raise UsageError(f"{options.out.name} and the format {options.suffix[1:]} contradict each other; drop one")
        suffix = options.out.suffix
    if suffix.lower() not in WRITERS:
        names = ", ".join(each[1:] for each in WRITERS)
        raise UsageError(f"{suffix[1:]!r} is no format that can be written; there are {names}")
    writer_for(Path("x" + suffix), options.writer)
    others = [photo for scene in scenes for photo in scene.photos if photo is not scene.first]
    outputs = plan_outputs([scene.first for scene in scenes], options.out, suffix, others, options.samples.paths)
    return [
        Job(scene, output, tuple(options.samples.paths(output))) for scene, output in zip(scenes, outputs, strict=True)
    ]


def with_weights(options: EnhanceOptions, photos: Sequence[Photo | Scene]) -> EnhanceOptions:
    """The options with weights for several frames where some scene has them and no weights were named."""
    if options.weights is None and any(isinstance(each, Scene) and len(each.photos) > 1 for each in photos):
        return replace(options, weights=BURST_WEIGHTS)
    return options


def own_jobs(jobs: Sequence[Job], part: Shard | None) -> list[Job]:
    """The jobs of one part, dealt out by the path of the photo that names the picture; all without a part."""
    return shard(jobs, part, key=lambda job: str(job.photo.path))


def outputs_exist(job: Job, *, overwrite: bool) -> bool:
    """Whether all that a job writes is there and may stay; raises where it can be neither read nor written."""
    if all(photo.problem for photo in job.scene.photos):
        raise UsageError(str(job.photo.problem))
    inputs = [photo.path for photo in job.scene.photos]
    return all_exist([job.output, *job.beside], inputs, overwrite=overwrite)


def skip_notes(job: Job) -> list[str]:
    """What to say of a job whose outputs are there: just that, or that the picture shows another photo of the name.

    Names are all that skipping goes by; the time a photo was taken at, which pictures keep, tells two of them apart.
    """
    theirs = told_times(job.output)
    ours = {read_metadata(photo.path).taken_at for photo in job.scene.photos} if theirs else set()
    if not theirs or None in ours or theirs & ours:
        return [EXISTS]
    times = f"taken at {min(theirs)} and not at {min(filter(None, ours))}"
    return [EXISTS, f"{job.output} was made from another photo, {times}; name another folder for this one"]
