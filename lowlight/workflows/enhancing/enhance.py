"""A list of dark RAW photos or scenes of several in, bright pictures out; one bad photo never stops the rest.

Threads read and meter ahead and write behind while the network runs, as many as the options' `jobs`, so that a few
photos are in memory whatever their number. Every output appears whole under its final name or not at all.
"""

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lowlight.core.atomic import remove_leftovers
from lowlight.core.errors import LowlightError
from lowlight.workflows.enhancing.contact_sheet import ContactSheets
from lowlight.workflows.enhancing.enhancer import Enhancer, Written
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.outputs import is_file_name
from lowlight.workflows.enhancing.planning import outputs_exist, own_jobs, plan_jobs, skip_notes, with_weights
from lowlight.workflows.enhancing.reading import Read, check_scene
from lowlight.workflows.enhancing.rows import Job, Row, failed_row, make_row
from lowlight.workflows.enhancing.scenes import Scene

__all__ = ["EnhanceOptions", "enhance_files", "enhance_jobs"]

OnRow = Callable[[Row], None]
OnSheet = Callable[[Path], None]
OnMeter = Callable[[int, int], None]  # photos metered, photos in all
Stop = Callable[[], bool]


def enhance_files(
    photos: Sequence[Photo | Scene],
    options: EnhanceOptions,
    *,
    on_row: OnRow | None = None,
    on_meter: OnMeter | None = None,
    on_sheet: OnSheet = lambda path: None,
    stop: Stop = lambda: False,
) -> list[Row]:
    """Enhance photos, or scenes of several frames that make one picture, and give a row for each, in order.

    A row has `file` (of a scene the first), `frames` (names of all), `output`, `samples` (files beside the output),
    `status` (done, skipped, failed or planned), `ratio`, `ratio_source`, `batch` (tiles at a time), `width`, `height`,
    `seconds`, `notes` (a list of sentences) and `error`; what does not apply is None. Of a shard there are the rows
    of its photos alone, though names and the one common ratio are those of all `photos`.
    Options that cannot work raise `UsageError` before the first photo is touched. `on_row` gets each row as soon as it
    is known, `on_sheet` the place of each contact sheet; `on_meter` hears of the pass that one common ratio needs. Once
    `stop` says so, the photo in hand is given up, those past the network are written, and the rows so far are returned.
    """
    options = with_weights(options, photos)
    whole = plan_jobs(photos, options)
    jobs = own_jobs(whole, options.shard)
    if stop():
        return []
    enhancer = Enhancer(options)
    on_row = on_row or (lambda row: None)
    if options.dry_run:
        return _planned(jobs, options, on_row)
    same_ratio = None
    if options.ratio == "same" and jobs:
        known = _all_stops(enhancer, whole, on_meter or (lambda done, total: None), stop)
        if known is None:
            return []
        same_ratio = common_ratio(known)
    return enhance_jobs(
        enhancer, jobs, same_ratio, overwrite=options.overwrite, on_row=on_row, on_sheet=on_sheet, stop=stop
    )


def enhance_jobs(
    enhancer: Enhancer,
    jobs: Sequence[Job],
    same_ratio: float | None,
    *,
    overwrite: bool,
    on_row: OnRow = lambda row: None,
    on_sheet: OnSheet = lambda path: None,
    stop: Stop = lambda: False,
) -> list[Row]:
    """Read ahead, restore, write behind; the rows are those of `enhance_files`.

    `same_ratio` is the common ratio where one is for all. `overwrite` goes before the enhancer's own options.
    """
    return _Flow(enhancer, jobs, same_ratio, overwrite, on_row, on_sheet, stop).run()


def common_ratio(stops: Iterable[float | None]) -> float | None:
    """The one ratio for all: the median in stops of what each photo would get; None where none could be read."""
    known = [each for each in stops if each is not None]
    return 2.0 ** statistics.median(known) if known else None


def _all_stops(enhancer: Enhancer, jobs: Sequence[Job], on_meter: OnMeter, stop: Stop) -> list[float | None] | None:
    """What each photo would get, in stops; None once `stop` says so.

    Photos whose output exists count as well, so that a series that was interrupted goes on as it began.
    """
    found = []
    for done, job in enumerate(jobs):
        on_meter(done, len(jobs))
        if stop():
            return None
        found.append(enhancer.stops(job))
    on_meter(len(jobs), len(jobs))
    return found


def _planned(jobs: Sequence[Job], options: EnhanceOptions, on_row: OnRow) -> list[Row]:
    """Say what would be done, from names and first bytes alone."""
    rows = []
    for job in jobs:
        try:
            exists = outputs_exist(job, overwrite=options.overwrite)
            if not exists:
                check_scene(job.scene)
            row = make_row(job, "skipped", notes=skip_notes(job)) if exists else make_row(job, "planned")
        except (LowlightError, OSError) as error:
            row = failed_row(job, error)
        rows.append(row)
        on_row(row)
    return rows


class _GiveUp(BaseException):
    """Ends the run from between two batches; no photo may take it for its own failure."""


class _Flow:
    """What is being read and written, and the rows so far."""

    def __init__(
        self,
        enhancer: Enhancer,
        jobs: Sequence[Job],
        same_ratio: float | None,
        overwrite: bool,
        on_row: OnRow,
        on_sheet: OnSheet,
        stop: Stop,
    ) -> None:
        self.enhancer, self.jobs, self.same_ratio, self.overwrite = enhancer, jobs, same_ratio, overwrite
        self.on_row, self.stop = on_row, stop
        self.rows: list[Row] = []
        self.writing: deque[Future[Written]] = deque()
        options = enhancer.options
        self.threads = options.jobs
        folder = options.out.parent if is_file_name(options.out) else options.out
        self.sheets = None
        if options.contact_sheet:
            outputs = {path for job in jobs for path in (job.output, *job.beside)}
            self.sheets = ContactSheets(folder, on_sheet, overwrite=overwrite, outputs=outputs)

    def run(self) -> list[Row]:
        remove_leftovers(path for job in self.jobs for path in (job.output, *job.beside))
        try:
            with ThreadPoolExecutor(self.threads) as readers, ThreadPoolExecutor(self.threads) as writers:
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
                while len(reading) < self.threads + 1 and (job := next(waiting, None)):
                    reading.append((job, readers.submit(self._read, job)))
                if not reading:
                    return
                job, read = reading.popleft()
                self.writing.append(self.enhancer.restore(job, read, writers, self._between))
                while len(self.writing) > self.threads:
                    self._deliver_first()
        finally:
            for _, read in reading:  # those past the network are written while the pools close
                read.cancel()

    def _read(self, job: Job) -> Read | None:
        return self.enhancer.read(job, self.same_ratio, overwrite=self.overwrite)

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
        row, small = self.writing.popleft().result()
        self.rows.append(row)
        if self.sheets and small:
            self.sheets.add(small)
        self.on_row(row)
