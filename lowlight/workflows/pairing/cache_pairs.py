"""Decoding a set of pairs once into a cache: forecast, decode what is missing, write the index.

Every array is written to a temporary name and renamed, then noted in a journal, so that a killed run goes on where it
stood. The index appears last; what it names is complete.
"""

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np

from lowlight.core.atomic import is_leftover, replacing, write_text
from lowlight.core.errors import DataError, InterruptedRunError, LowlightError, OutputError
from lowlight.core.hashing import file_sha256
from lowlight.core.photo import RGGB, RawFrame
from lowlight.data.cache import (
    FORMAT,
    FRAMES,
    INDEX,
    TRUTHS,
    FrameRecord,
    TruthRecord,
    frame_record,
    index_json,
    npy_bytes,
    source_file,
)
from lowlight.data.decoding import Pixels, decode_frame, decode_truth
from lowlight.data.pairs import PairRow
from lowlight.data.sid import open_pairs
from lowlight.raw.bayer import packed_size
from lowlight.raw.levels import named_levels
from lowlight.raw.render import visible_size
from lowlight.workflows.pairing.cache_journal import Journal, Record
from lowlight.workflows.pairing.cache_options import SPARE_BYTES, CacheOptions, CacheSummary, Forecast, size_in_words
from lowlight.workflows.stopping import StopFlag, stop_on_signal

Progress = Callable[[int, int], None]  # files done, files in all


def forecast_cache(data: Path, folder: Path, options: CacheOptions) -> Forecast:
    """Say what `cache_pairs` would take, without decoding or writing anything."""
    return _Plan(data, folder, options).forecast()


def cache_pairs(
    data: Path,
    folder: Path,
    options: CacheOptions,
    progress: Progress | None = None,
    announce: Callable[[Forecast], None] | None = None,
) -> CacheSummary:
    """Decode the pairs of a manifest or SID folder into the cache `folder`; what is there already is kept.

    `announce` is told the forecast before anything is written. Files that cannot be decoded are left out with their
    pairs and listed. Arrays that no pair needs any more are removed on request only. Raises `DataError` where there
    are some otherwise, where files are missing or the disk is too small, `InterruptedRunError` on a signal; the same
    call then goes on.
    """
    plan = _Plan(data, folder, options)
    forecast = plan.forecast()
    if announce:
        announce(forecast)
    if forecast.unneeded and not options.prune:
        raise DataError(
            f"{folder} holds {forecast.unneeded} decoded files that these pairs do not need and that would be lost; "
            "add --prune to remove them, or name another folder"
        )
    if forecast.missing_bytes + SPARE_BYTES > forecast.free_bytes:
        raise DataError(
            f"the cache would take {size_in_words(forecast.missing_bytes)} more, but the disk of {folder} has "
            f"{size_in_words(forecast.free_bytes)} free; choose another disk, one split or only the first of each burst"
        )
    return plan.run(progress)


class _Plan:
    """The files of a set of pairs, and what has been decoded of them."""

    def __init__(self, data: Path, folder: Path, options: CacheOptions) -> None:
        self.folder, self.options = folder, options
        self.levels = named_levels(options.levels)
        self.rows = open_pairs(data, options.split, burst=options.burst, exclude=options.exclude)
        self.root = (data if data.is_dir() else data.parent).resolve()
        self.by_truth: dict[Path, list[PairRow]] = {}
        for row in self.rows:
            self.by_truth.setdefault(row.bright, []).append(row)
        self.darks = list(dict.fromkeys(row.dark for row in self.rows))
        missing = [file for file in (*self.darks, *self.by_truth) if not file.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} files that {data} names do not exist, the first is {missing[0]}; bring them, or "
                "name them in an exclude file"
            )
        settings = {"format": FORMAT, "truth_size": options.truth_size, "levels": options.levels}
        self.journal = Journal(folder, settings, verify=options.verify)
        self._refuse_other_pairs()
        self.failed: dict[str, str] = {}

    def _refuse_other_pairs(self) -> None:
        """Leave alone what a mistyped folder holds: arrays of other pairs would be removed at the end."""
        ours = {("frame", self.shown(dark)) for dark in self.darks}
        theirs = {key for key in self.journal.known if key[0] == "frame"}
        if theirs and not theirs & ours:
            raise DataError(
                f"{self.folder} holds {len(theirs)} decoded frames of other pairs, which would be lost; name a new "
                "folder, or remove this one"
            )

    def shown(self, file: Path) -> str:
        """Give the path to record: relative to the data where it lies inside.

        A link is told by its own name, in caches that were made earlier by what it leads to.
        """
        places = (file.parent.resolve() / file.name, file.resolve())
        names = [(p.relative_to(self.root) if p.is_relative_to(self.root) else p).as_posix() for p in places]
        known = (name for name in names if {("frame", name), ("truth", name)} & self.journal.known.keys())
        return next(known, names[0])

    def forecast(self) -> Forecast:
        """Add up sizes, from the files' headers where nothing is decoded yet."""
        total = missing = 0
        truth_channels = 3 if self.options.truth_size == "half" else 12
        for bright, rows in self.by_truth.items():
            shape: tuple[int, int] | None = None
            for dark in dict.fromkeys(row.dark for row in rows):
                record = self.journal.finished("frame", dark, self.shown(dark))
                found = record.shape[:2] if record else _packed_shape(dark)
                if found is None:
                    continue  # what cannot be read is said when its turn comes
                shape = found
                total += npy_bytes((*found, 4))
                missing += 0 if record else npy_bytes((*found, 4))
            if shape is not None:
                truth = self.journal.finished("truth", bright, self.shown(bright))
                size = npy_bytes(truth.shape if truth else (*shape, truth_channels))
                total += size
                missing += 0 if truth else size
        home = next(place for place in (self.folder.resolve(), *self.folder.resolve().parents) if place.exists())
        free = shutil.disk_usage(home).free
        needed = {("frame", self.shown(dark)) for dark in self.darks}
        needed |= {("truth", self.shown(bright)) for bright in self.by_truth}
        unneeded = len(self.journal.known.keys() - needed)
        return Forecast(len(self.rows), len(self.darks), len(self.by_truth), total, missing, free, unneeded)

    def run(self, progress: Progress | None) -> CacheSummary:
        """Decode what is missing with several threads, then write the index."""
        self.journal.begin()
        self._make_folders()
        count = _Count(len(self.darks) + len(self.by_truth), progress)
        with stop_on_signal() as stopped, ThreadPoolExecutor(max(self.options.jobs, 1)) as pool:
            tasks = [pool.submit(self._scene, bright, rows, count, stopped) for bright, rows in self.by_truth.items()]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                stopped.signal = stopped.signal or signal.SIGINT  # the other threads end after their file
                pool.shutdown(cancel_futures=True)
                raise
        if stopped:
            raise InterruptedRunError(
                f"stopped with {count.done} of {count.total} files done, they are kept; the same command goes on"
            )
        return self._finish(count)

    def _make_folders(self) -> None:
        for name in (FRAMES, TRUTHS):
            (self.folder / name).mkdir(exist_ok=True)
            for file in (self.folder / name).iterdir():
                if is_leftover(file):
                    file.unlink(missing_ok=True)

    def _scene(self, bright: Path, rows: list[PairRow], count: "_Count", stopped: StopFlag) -> None:
        """Decode a truth and its dark frames, as far as they are not there yet."""
        outline: RawFrame | None = None
        for dark in dict.fromkeys(row.dark for row in rows):
            if stopped:
                return
            with self._noting_failure(dark):
                kept = self.journal.finished("frame", dark, self.shown(dark))
                record = kept or self._decode_frame(dark)
                assert isinstance(record, FrameRecord)
                outline = outline or record.outline()
                count.add(decoded=kept is None)
        if outline is None or stopped:
            return
        with self._noting_failure(bright):
            truth = self.journal.finished("truth", bright, self.shown(bright))
            if truth is None:
                self._decode_truth(bright, outline)
            count.add(decoded=truth is None)

    def _decode_frame(self, dark: Path) -> FrameRecord:
        shown = self.shown(dark)
        stored, frame = decode_frame(dark, self.options.truth_size, self.levels)
        file = f"{FRAMES}/{_array_name(dark, shown)}"
        record = frame_record(file, self._write(file, stored), stored, frame, source_file(dark, shown))
        self.journal.note("frame", record)
        return record

    def _decode_truth(self, bright: Path, outline: RawFrame) -> None:
        shown = self.shown(bright)
        pixels, exposure_s = decode_truth(bright, outline, self.options.truth_size)
        file = f"{TRUTHS}/{_array_name(bright, shown)}"
        height, width, channels = pixels.shape
        record = TruthRecord(
            file=file,
            sha256=self._write(file, pixels),
            shape=(height, width, channels),
            source=source_file(bright, shown),
            exposure_s=exposure_s,
        )
        self.journal.note("truth", record)

    def _write(self, file: str, pixels: Pixels) -> str:
        """Write an array whole or not at all; give its file's hash."""
        with replacing(self.folder / file) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, pixels, allow_pickle=False)
            return file_sha256(temporary)

    @contextmanager
    def _noting_failure(self, file: Path) -> Iterator[None]:
        """Keep one bad file from ending the work on the others."""
        try:
            yield
        except LowlightError as error:
            self.failed[self.shown(file)] = str(error)
        except OSError as error:
            raise OutputError(f"{file.name} cannot be cached: {error.strerror or error}") from error

    def _finish(self, count: "_Count") -> CacheSummary:
        """Write the index of what could be decoded, and remove what it does not name."""
        index = self.journal.index(self.rows, self.shown, self.failed)
        write_text(self.folder / INDEX, index_json(index))
        self.journal.end()
        records: tuple[Record, ...] = (*index.frames, *index.truths)
        sizes = {record.file: npy_bytes(record.shape) for record in records}
        unused = [record.file for record in self.journal.known.values() if record.file not in sizes]
        for file in unused:
            (self.folder / file).unlink(missing_ok=True)
        return CacheSummary(
            folder=self.folder,
            pairs=len(index.pairs),
            decoded=count.decoded,
            kept=count.done - count.decoded,
            removed=len(unused),
            bytes=sum(sizes.values()),
            failed=self.failed,
        )


class _Count:
    """Counts finished files for all threads and tells whoever watches."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress = total, progress
        self.done = self.decoded = 0
        self._lock = Lock()

    def add(self, *, decoded: bool) -> None:
        """Count one file, decoded now or found."""
        with self._lock:
            self.done += 1
            self.decoded += decoded
            if self.progress:
                self.progress(self.done, self.total)


def _packed_shape(dark: Path) -> tuple[int, int] | None:
    try:
        return packed_size(visible_size(dark), RGGB)
    except LowlightError:
        return None


def _array_name(file: Path, shown: str) -> str:
    """Name an array after its file; files of one name in different folders are told apart."""
    return f"{file.stem[:100]}.{hashlib.sha256(shown.encode()).hexdigest()[:8]}.npy"
