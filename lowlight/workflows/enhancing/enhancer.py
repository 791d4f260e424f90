"""A network that was loaded once, and what it does with one photo after another: read, restore, write."""

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache

from lowlight.checkpoint import find_weights, load_weights
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.errors import LowlightError, UsageError, WeightsError
from lowlight.core.folders import make_folder
from lowlight.data.pictures import read_picture
from lowlight.device_restorer import open_restorer
from lowlight.hypotheses import Hypotheses
from lowlight.restorer import Pixels, Restored
from lowlight.workflows.enhancing.contact_sheet import Thumbnails, thumbnails
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.photo_steps import finished, meter, refuse_black
from lowlight.workflows.enhancing.planning import outputs_exist, skip_notes
from lowlight.workflows.enhancing.reading import Read, read_first, read_scene, recorded
from lowlight.workflows.enhancing.rows import Job, Row, batch_note, failed_row, frames_note, make_row
from lowlight.workflows.enhancing.samples import SampleWriter
from lowlight.writers import write_picture, writer_for

logger = logging.getLogger(__name__)

Written = tuple[Row, Thumbnails | None]
Between = Callable[[], None]


class Enhancer:
    """The network of a command and the steps of one photo; who uses it decides on threads and on the photos.

    Raises `UsageError` for options that cannot work with these weights or this device.
    """

    def __init__(self, options: EnhanceOptions) -> None:
        self.options = options
        device = choose_device(options.device)
        if options.restorer.compile and device.type == "cpu":
            raise UsageError("--compile is for GPUs; on a CPU it would take longer than it saves, so leave it out")
        try:
            self.weights = find_weights(options.weights)
            model, _ = load_weights(self.weights, choose_precision(options.restorer.precision, device))
        except WeightsError as error:  # nothing was touched, so it is the command that is wrong
            raise UsageError(str(error)) from error
        self.restorer = open_restorer(model, options.restorer, device)
        logger.info(
            "weights %s on %s in %s, %d tiles at a time, %d views",
            *(self.weights, device, self.restorer.dtype, self.restorer.batch, self.restorer.ensemble),
        )
        if options.wb != "camera" and self.restorer.traits.output_colour == "srgb":
            raise UsageError(
                f"--wb needs weights that give camera colour, and {self.weights.name} gives finished sRGB; "
                "leave the balance at camera, or use other weights"
            )
        if options.samples.count and not self.restorer.traits.latents:
            raise UsageError(f"{self.weights.name} has no latents to draw --samples from; use other weights")
        if options.samples.count:
            options.samples.check_levels(options.restorer.levels, self.restorer.traits.levels)

    def stops(self, job: Job) -> float | None:
        """The automatic ratio of a photo's reference, in stops; None where none of its frames can be read."""
        with suppress(Exception):  # it gets its row, with the reason, when its turn comes
            return math.log2(meter(read_first(job.scene, self.options)))
        return None

    def read(self, job: Job, same_ratio: float | None, *, overwrite: bool) -> Read | None:
        """The frames and their ratio; None where the output is there already and no sheet wants it."""
        exists = outputs_exist(job, overwrite=overwrite)
        if exists and not self.options.contact_sheet:
            return None
        try:
            read = read_scene(job.scene, self.options, same_ratio, only_sheet=exists)
            return read if exists else read._replace(burst=self.restorer.upload(read.burst))
        except Exception:
            if exists:
                return None
            raise

    def restore(
        self, job: Job, reading: Future[Read | None], writers: ThreadPoolExecutor, between: Between
    ) -> Future[Written]:
        """Run the network on one photo and hand the result to a writer; the future gives the photo's row.

        `between` is called before every batch of tiles; what it raises that is no `Exception` ends the work.
        """
        began = time.monotonic()
        ready: Future[Written] = Future()
        try:
            read = reading.result()
            if read is None:
                ready.set_result((make_row(job, "skipped", notes=skip_notes(job)), None))
                return ready
            if read.exists:
                return writers.submit(self._only_sheet, job, read)
            finish = self._begin(job, read, between)
            samples = None
            if job.beside:
                refuse_black(finish().pixels, job.photo.path.name)
                samples = self._samples(job, read, writers, between)
        except Exception as error:  # decoders and devices raise what they like, and the other photos go on
            ready.set_result((failed_row(job, error), None))
            return ready
        return writers.submit(self._write, job, read, finish, samples, began)

    def _begin(self, job: Job, read: Read, between: Between) -> Callable[[], Restored]:
        """Start the network on a photo; what is given waits for it, which a writer does while the next one starts."""
        finish = self.restorer.start(
            read.burst,
            read.ratio,
            window=read.window,
            keep_linear=writer_for(job.output).needs_linear,
            between=between,
        )
        return cache(finish)  # with samples it is asked for twice

    def _samples(self, job: Job, read: Read, writers: ThreadPoolExecutor, between: Between) -> SampleWriter:
        """Draw the hypotheses one after another, each written while the next is computed."""
        options = self.options.samples
        lines = recorded(read, self.weights.name, self.options)
        written = SampleWriter(job.beside, read.frame, lines, options, self.options.writer, writers)
        hypotheses = Hypotheses(
            self.restorer,
            read.burst,
            read.ratio,
            options.temperature,
            window=read.window,
            fix_from=options.fix_from,
            keep_linear=writer_for(job.output).needs_linear,
            between=between,
        )
        for number in range(1, options.count + 1):
            written.add(hypotheses.draw(options.generator(number)))
        return written

    def _write(
        self, job: Job, read: Read, finish: Callable[[], Restored], samples: SampleWriter | None, began: float
    ) -> Written:
        try:
            restored = finish()
            refuse_black(restored.pixels, job.photo.path.name)
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
            frames=[aligned.frame.path.name for aligned in read.burst.frames if aligned.frame.path],
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
        return make_row(job, "skipped", notes=skip_notes(job)), self._thumbnails(job.photo.path.name, read, result)

    def _thumbnails(self, label: str, read: Read, result: Pixels | None) -> Thumbnails | None:
        if not self.options.contact_sheet:
            return None
        try:
            return thumbnails(label, read.frame, read.ratio, result, read.window)
        except Exception as error:  # the picture is there, which is what counts
            logger.warning("%s is not on the contact sheet: %s", read.frame.path, error)
            return None
