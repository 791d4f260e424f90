"""A list of dark RAW photos or scenes of several in, bright pictures out; one bad photo never stops the rest.

One thread reads and meters ahead and one writes behind while the network runs, so that at most a few photos are in
memory whatever their number. Every output appears whole under its final name or not at all.
"""

import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from lowlight.checkpoint import find_weights, load_weights
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.errors import LowlightError, UsageError, WeightsError
from lowlight.core.photo import RawFrame
from lowlight.core.restoration import Noise
from lowlight.data.pictures import read_picture
from lowlight.restorer import Pixels, Restored, Restorer
from lowlight.workflows.enhancing.contact_sheet import ContactSheets, Thumbnails, thumbnails
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.outputs import (
    all_exist,
    is_file_name,
    make_folder,
    plan_outputs,
    remove_leftovers,
)
from lowlight.workflows.enhancing.photo_steps import finished, meter, refuse_black
from lowlight.workflows.enhancing.reading import Read, check_scene, read_first, read_scene, recorded
from lowlight.workflows.enhancing.rows import Job, Row, batch_note, failed_row, frames_note, make_row
from lowlight.workflows.enhancing.samples import SampleWriter
from lowlight.workflows.enhancing.scenes import Scene
from lowlight.writers import write_picture, writer_for

__all__ = ["EnhanceOptions", "enhance_files"]

logger = logging.getLogger(__name__)

EXISTS = "the output exists already"
OnRow = Callable[[Row], None]
OnMeter = Callable[[int, int], None]  # photos metered, photos in all


def enhance_files(
    photos: Sequence[Photo | Scene],
    options: EnhanceOptions,
    *,
    on_row: OnRow | None = None,
    on_meter: OnMeter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Enhance photos, or scenes of several frames that make one picture, and give a row for each, in order.

    A row has `file` (of a scene the first), `frames` (names of all), `output`, `samples` (files beside the output),
    `status` (done, skipped, failed or planned), `ratio`, `ratio_source`, `batch` (tiles at a time), `width`, `height`,
    `seconds`, `notes` (a list of sentences) and `error`; what does not apply is None.
    Options that cannot work raise `UsageError` before the first photo is touched. `on_row` gets each row as soon as
    it is known, `on_meter` hears of the pass that one common ratio needs. Once `stop` says so, the photo in hand is
    given up, those past the network are written, and the rows so far are returned.
    """
    jobs = _plan(photos, options)
    if stop():
        return []
    run = _Run(jobs, options, on_row or (lambda row: None), on_meter or (lambda done, total: None), stop)
    return run.plan_only() if options.dry_run else run.enhance()


Written = tuple[Row, Thumbnails | None]


class _GiveUp(BaseException):
    """Ends the run from between two batches; no photo may take it for its own failure."""


def _plan(photos: Sequence[Photo | Scene], options: EnhanceOptions) -> list[Job]:
    scenes = [photo if isinstance(photo, Scene) else Scene((photo,)) for photo in photos]
    suffix = options.suffix or ".png"
    if is_file_name(options.out):
        if options.suffix and writer_for(Path("x" + options.suffix)) != writer_for(options.out):
            raise UsageError(f"{options.out.name} and the format {options.suffix[1:]} contradict each other; drop one")
        suffix = options.out.suffix
    writer_for(Path("x" + suffix), options.writer)
    others = [photo for scene in scenes for photo in scene.photos[1:]]
    outputs = plan_outputs([scene.first for scene in scenes], options.out, suffix, others)
    return [
        Job(scene, output, tuple(options.samples.paths(output))) for scene, output in zip(scenes, outputs, strict=True)
    ]


class _Run:
    """The state of one run: the network, what is being read and written, the rows so far."""

    def __init__(
        self, jobs: list[Job], options: EnhanceOptions, on_row: OnRow, on_meter: OnMeter, stop: Callable[[], bool]
    ) -> None:
        self.jobs, self.options = jobs, options
        self.on_row, self.on_meter, self.stop = on_row, on_meter, stop
        device = choose_device(options.device)
        try:
            self.weights = find_weights(options.weights)
            model, _ = load_weights(self.weights, choose_precision(options.restorer.precision, device))
        except WeightsError as error:  # nothing was touched, so it is the command that is wrong
            raise UsageError(str(error)) from error
        self.restorer = Restorer(model, options.restorer, device)
        if options.wb != "camera" and self.restorer.traits.output_colour == "srgb":
            raise UsageError(
                f"--wb needs weights that give camera colour, and {self.weights.name} gives finished sRGB; "
                "leave the balance at camera, or use other weights"
            )
        if options.samples.count and not self.restorer.traits.latents:
            raise UsageError(f"{self.weights.name} has no latents to draw --samples from; use other weights")
        self.rows: list[Row] = []
        self.same_ratio: float | None = None
        self.writing: deque[Future[Written]] = deque()
        folder = options.out.parent if is_file_name(options.out) else options.out
        self.sheets = ContactSheets(folder) if options.contact_sheet else None

    def plan_only(self) -> list[Row]:
        """Say what would be done, from names and first bytes alone."""
        for job in self.jobs:
            try:
                exists = self._exists(job)
                if not exists:
                    check_scene(job.scene)
                self._record((make_row(job, "skipped", notes=[EXISTS]) if exists else make_row(job, "planned"), None))
            except (LowlightError, OSError) as error:
                self._record((failed_row(job, error), None))
        return self.rows

    def enhance(self) -> list[Row]:
        """Read ahead, restore, write behind."""
        remove_leftovers(path for job in self.jobs for path in (job.output, *job.beside))
        try:
            if self.options.ratio == "same":
                self.same_ratio = self._common_ratio()
            with ThreadPoolExecutor(self.options.jobs) as readers, ThreadPoolExecutor(self.options.jobs) as writers:
                self._flow(readers, writers)
        except _GiveUp as end:
            if end.__cause__ is not None:
                raise end.__cause__ from None
        self._deliver(wait=True)
        if self.sheets:
            self.sheets.flush()
        return self.rows

    def _flow(self, readers: ThreadPoolExecutor, writers: ThreadPoolExecutor) -> None:
        reading: deque[tuple[Job, Future[Read | None]]] = deque()
        waiting = iter(self.jobs)
        try:
            while True:
                self._between()
                while len(reading) < self.options.jobs + 1 and (job := next(waiting, None)):
                    reading.append((job, readers.submit(self._read, job)))
                if not reading:
                    return
                job, read = reading.popleft()
                self.writing.append(self._restore(job, read, writers))
                while len(self.writing) > self.options.jobs:
                    self._deliver_first()
        finally:
            for _, read in reading:  # those past the network are written while the pools close
                read.cancel()

    def _between(self) -> None:
        """Between two batches: hand over what has been written, and stop where that is wanted."""
        try:
            self._deliver()
        except Exception as error:
            raise _GiveUp from error
        if self.stop():
            raise _GiveUp

    def _deliver(self, *, wait: bool = False) -> None:
        while self.writing and (wait or self.writing[0].done()):
            self._deliver_first()

    def _deliver_first(self) -> None:
        self._record(self.writing.popleft().result())

    def _record(self, written: Written) -> None:
        row, small = written
        self.rows.append(row)
        if self.sheets and small:
            self.sheets.add(small)
        self.on_row(row)

    def _exists(self, job: Job) -> bool:
        """Whether all outputs are there already; raises where they cannot be written."""
        if all(photo.problem for photo in job.scene.photos):
            raise UsageError(str(job.photo.problem))
        inputs = [photo.path for photo in job.scene.photos]
        return all_exist([job.output, *job.beside], inputs, overwrite=self.options.overwrite)

    def _read(self, job: Job) -> Read | None:
        """The frames and their ratio; None where the output is there already and no sheet wants it."""
        exists = self._exists(job)
        if exists and not self.sheets:
            return None
        try:
            return read_scene(job.scene, self.options, self.same_ratio, only_sheet=exists)
        except Exception:
            if exists:
                return None
            raise

    def _frame(self, job: Job) -> RawFrame:
        """The frame that is metered where one ratio is for all."""
        return read_first(job.scene, self.options)

    def _restore(self, job: Job, reading: Future[Read | None], writers: ThreadPoolExecutor) -> Future[Written]:
        """Run the network on one photo and hand the result to a writer; the future gives the photo's row."""
        began = time.monotonic()
        ready: Future[Written] = Future()
        try:
            read = reading.result()
            if read is None:
                ready.set_result((make_row(job, "skipped", notes=[EXISTS]), None))
                return ready
            if read.exists:
                return writers.submit(self._only_sheet, job, read)
            restored = self._network(job, read)
            refuse_black(restored.pixels, job.photo.path.name)
            samples = self._samples(job, read, writers) if job.beside else None
        except Exception as error:  # decoders and devices raise what they like, and the other photos go on
            ready.set_result((failed_row(job, error), None))
            return ready
        return writers.submit(self._write, job, read, restored, samples, began)

    def _network(self, job: Job, read: Read, noise: Noise | None = None) -> Restored:
        return self.restorer.photo(
            read.burst,
            read.ratio,
            window=read.window,
            keep_linear=writer_for(job.output).needs_linear,
            noise=noise,
            between=self._between,
        )

    def _samples(self, job: Job, read: Read, writers: ThreadPoolExecutor) -> SampleWriter:
        """Draw the hypotheses one after another, each written while the next is computed."""
        options = self.options.samples
        lines = recorded(read, self.weights.name, self.options)
        written = SampleWriter(job.beside, read.frame, lines, options, self.options.writer, writers)
        for number in range(1, options.count + 1):
            noise = self.restorer.noise(read.frame, options.generator(number), options.temperature)
            written.add(self._network(job, read, noise))
        return written

    def _write(self, job: Job, read: Read, restored: Restored, samples: SampleWriter | None, began: float) -> Written:
        try:
            notes = samples.finish() if samples else []
            picture = finished(read.frame, restored, recorded(read, self.weights.name, self.options))
            make_folder(job.output.parent)
            write_picture(job.output, picture, self.options.writer)
        except Exception as error:
            return failed_row(job, error), None
        height, width = picture.pixels.shape[:2]
        row = make_row(
            job,
            "done",
            ratio=round(read.ratio, 3),
            ratio_source=read.source,
            batch=restored.batch,
            width=width,
            height=height,
            seconds=round(time.monotonic() - began, 3),
            notes=[
                *read.notes,
                *frames_note(len(read.burst.frames), self.restorer.traits.max_frames),
                *batch_note(restored.batch, self.restorer.batch),
                *notes,
            ],
        )
        return row, self._thumbnails(f"{job.photo.path.name}  x{read.ratio:.3g}", read, picture.pixels)

    def _only_sheet(self, job: Job, read: Read) -> Written:
        """A photo that is skipped is on the sheet all the same, with the picture that is there if it can be read."""
        result = None
        with suppress(LowlightError):  # a linear DNG, or no picture any more
            result = read_picture(job.output)
        return make_row(job, "skipped", notes=[EXISTS]), self._thumbnails(job.photo.path.name, read, result)

    def _thumbnails(self, label: str, read: Read, result: Pixels | None) -> Thumbnails | None:
        if not self.sheets:
            return None
        try:
            return thumbnails(label, read.frame, read.ratio, result, read.window)
        except Exception as error:  # the picture is there, which is what counts
            logger.warning("%s is not on the contact sheet: %s", read.frame.path, error)
            return None

    def _common_ratio(self) -> float | None:
        """The median, in stops, of what each photo would get; None where no photo can be read.

        Photos whose output exists count as well, so that a series that was interrupted goes on as it began.
        """
        stops = []
        for done, job in enumerate(self.jobs):
            self.on_meter(done, len(self.jobs))
            if self.stop():
                raise _GiveUp
            # A photo that cannot be read gets its row, with the reason, when its turn comes.
            with suppress(Exception):
                stops.append(math.log2(meter(self._frame(job))))
        self.on_meter(len(self.jobs), len(self.jobs))
        return 2.0 ** statistics.median(stops) if stops else None
