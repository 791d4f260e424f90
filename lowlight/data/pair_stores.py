"""Where training windows of real pairs are read from: what a store promises, and one that decodes into memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lowlight.core.errors import DataError
from lowlight.data.cache import FrameRecord, digest_of, frame_record, source_file
from lowlight.data.decoding import Pixels, TruthSize, decode_frame, decode_truth
from lowlight.data.pairs import PairRow, pair_ratio
from lowlight.raw.levels import Levels


class PairStore(Protocol):
    """Where a training reads windows of frames and truths from."""

    truth_size: TruthSize

    @property
    def rows(self) -> Sequence[PairRow]:
        """The pairs; their position is the index the other methods take."""
        ...

    def record(self, index: int) -> FrameRecord:
        """What is known of the dark frame of a pair."""
        ...

    def ratio(self, index: int) -> float:
        """Give the amplification of a pair."""
        ...

    def frame(self, index: int) -> Pixels:
        """Open the packed dark frame `[h, w, 4]`."""
        ...

    def truth(self, index: int) -> Pixels:
        """Open the truth `[h, w, 3]` or `[2h, 2w, 3]`."""
        ...

    def digest(self) -> str:
        """Hash what the pairs were decoded from into a short text."""
        ...


class MemoryPairs:
    """A store that decodes each file when it is first asked for, and keeps it; dark ones with `levels`, if any."""

    def __init__(self, rows: Sequence[PairRow], truth_size: TruthSize, levels: Levels | None = None) -> None:
        self.rows, self.truth_size, self.levels = list(rows), truth_size, levels
        self._frames: dict[Path, tuple[Pixels, FrameRecord]] = {}
        self._truths: dict[Path, tuple[Pixels, float | None]] = {}
        self._digest: str | None = None
        for row in self.rows:
            for file in (row.dark, row.bright):
                if not file.is_file():
                    raise DataError(f"{file} is named as part of a pair but does not exist; exclude it or bring it")

    def record(self, index: int) -> FrameRecord:
        """What is known of the dark frame of a pair."""
        return self._decoded(index)[1]

    def ratio(self, index: int) -> float:
        """Give the amplification of a pair."""
        self.truth(index)
        row = self.rows[index]
        return pair_ratio(row, self.record(index).outline(), self._truths[row.bright][1])

    def frame(self, index: int) -> Pixels:
        """Give the packed dark frame `[h, w, 4]`."""
        return self._decoded(index)[0]

    def truth(self, index: int) -> Pixels:
        """Give the truth `[h, w, 3]` or `[2h, 2w, 3]`."""
        path = self.rows[index].bright
        if path not in self._truths:
            self._truths[path] = decode_truth(path, self.record(index).outline(), self.truth_size)
        return self._truths[path][0]

    def digest(self) -> str:
        """Hash what the pairs are decoded from into a short text."""
        if self._digest is None:
            files = {file for row in self.rows for file in (row.dark, row.bright)}
            hashes = {file: source_file(file, file.name).sha256 for file in files}
            self._digest = digest_of((hashes[row.dark], hashes[row.bright]) for row in self.rows)
        return self._digest

    def _decoded(self, index: int) -> tuple[Pixels, FrameRecord]:
        path = self.rows[index].dark
        if path not in self._frames:
            stored, frame = decode_frame(path, self.truth_size, self.levels)
            self._frames[path] = (stored, frame_record("", "", stored, frame, source_file(path, path.name)))
        return self._frames[path]
