"""What a cache holds while it is being made: its settings, and the arrays that are finished."""

import json
import logging
import os
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from lowlight import __version__
from lowlight.core.config import from_dict, parse_json, to_dict
from lowlight.core.errors import ConfigError, DataError, OutputError
from lowlight.core.hashing import file_sha256
from lowlight.data.cache import (
    INDEX,
    CachedPair,
    CacheIndex,
    FrameRecord,
    TruthRecord,
    is_whole,
    require_own,
)
from lowlight.data.pairs import PairRow, pair_ratio
from lowlight.raw.render import libraw_version

logger = logging.getLogger(__name__)

JOURNAL = "unfinished.jsonl"
KINDS: dict[str, type[FrameRecord] | type[TruthRecord]] = {"frame": FrameRecord, "truth": TruthRecord}
Record = FrameRecord | TruthRecord


class Journal:
    """Remembers finished arrays by their source, over interruptions.

    `settings` are what every array of the cache depends on; a folder made with others is refused with a
    `DataError`, as is one that holds anything but a cache.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, verify: bool = False) -> None:
        self.folder, self.settings, self.verify = folder, settings, verify
        self.known: dict[tuple[str, str], Record] = {}
        self._path = folder / JOURNAL
        self._lock = Lock()
        self._hashed: dict[str, str] = {}
        index, journal = folder / INDEX, self._path
        if index.is_file():
            self._read_index(index)
        if journal.is_file():
            self._read_journal(journal)
        if folder.exists() and not (index.is_file() or journal.is_file()) and any(folder.iterdir()):
            raise DataError(f"{folder} is not empty and no cache; name a new folder")

    def finished(self, kind: str, source: Path, shown: str) -> Record | None:
        """Find the array of a source file, None where it is not there or the source has changed since."""
        record = self.known.get((kind, shown))
        if record is None or not is_whole(self.folder, record):
            return None
        status = source.stat()
        if (record.source.bytes, record.source.mtime_ns) != (status.st_size, status.st_mtime_ns):
            logger.info("%s has changed and is decoded again", shown)
            return None
        if self.verify and record.file not in self._hashed:
            self._hashed[record.file] = file_sha256(self.folder / record.file)
        if self._hashed.get(record.file, record.sha256) != record.sha256:
            logger.warning("%s is damaged and is decoded again", record.file)
            return None
        return record

    def index(self, rows: Iterable[PairRow], shown: Callable[[Path], str], failed: dict[str, str]) -> CacheIndex:
        """Compose the index of all rows but those with a failed file; a row without any ratio is noted as failed."""
        frames: dict[FrameRecord, int] = {}
        truths: dict[TruthRecord, int] = {}
        pairs = []
        for row in rows:
            dark, bright = shown(row.dark), shown(row.bright)
            if dark in failed or bright in failed:
                continue
            frame, truth = self.known["frame", dark], self.known["truth", bright]
            assert isinstance(frame, FrameRecord)
            assert isinstance(truth, TruthRecord)
            try:
                ratio = pair_ratio(row, frame.outline(), truth.exposure_s)
            except DataError as error:
                failed[dark] = str(error)
                continue
            pairs.append(
                CachedPair(
                    frame=frames.setdefault(frame, len(frames)),
                    truth=truths.setdefault(truth, len(truths)),
                    ratio=ratio,
                    scene=row.scene,
                    split=row.split,
                    iso=frame.iso if row.iso is None else row.iso,
                    burst_index=row.burst_index,
                )
            )
        if not pairs:
            raise DataError(f"no pair could be decoded; the first reason: {next(iter(failed.values()))}")
        versions = {"lowlight": __version__, "rawpy": version("rawpy"), "libraw": libraw_version()}
        return CacheIndex(
            **self.settings,
            versions=versions,
            frames=tuple(frames),
            truths=tuple(truths),
            pairs=tuple(pairs),
            failed=failed,
        )

    def begin(self) -> None:
        """Make the folder and write the settings down, if that was not done before."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():
                self._append({"settings": self.settings})
                for (kind, _), record in self.known.items():
                    self._append({kind: to_dict(record)})
        except OSError as error:
            raise OutputError(f"the cache {self.folder} cannot be made: {error.strerror or error}") from error

    def note(self, kind: str, record: Record) -> None:
        """Write down a finished array."""
        self.known[kind, record.source.path] = record
        self._append({kind: to_dict(record)})

    def end(self) -> None:
        """Drop the journal: the index says everything now."""
        self._path.unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        with self._lock, self._path.open("a+b") as file:
            # What a killed run cut off must not swallow this line as well.
            if file.tell() and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
                file.write(b"\n")
            file.write((json.dumps(line) + "\n").encode())

    def _read_index(self, path: Path) -> None:
        try:
            index = from_dict(CacheIndex, parse_json(path.read_text(encoding="utf-8")), str(path))
        except (OSError, ValueError, ConfigError) as error:
            raise DataError(f"{path} is no index of a cache; name a new folder") from error
        self._expect({name: getattr(index, name) for name in self.settings})
        self.known.update({("frame", record.source.path): record for record in index.frames})
        self.known.update({("truth", record.source.path): record for record in index.truths})

    def _read_journal(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = parse_json(line)
                if "settings" in entry:
                    self._expect(entry["settings"])
                    continue
                for kind, values in entry.items():
                    record = from_dict(KINDS[kind], values, JOURNAL)
                    require_own(record)
                    self.known[kind, record.source.path] = record
            except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
                continue  # the last line of a killed run; what it would have said is decoded again

    def _expect(self, settings: dict[str, Any]) -> None:
        for name, value in self.settings.items():
            if settings.get(name) != value:
                raise DataError(
                    f"{self.folder} was made with {name} {settings.get(name)!r}, not {value!r}; name a new folder, or "
                    "give the same options"
                )
