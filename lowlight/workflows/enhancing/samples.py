"""Hypotheses drawn from a network's latents, and a map of how far they lie apart."""

import math
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from lowlight.core.errors import UsageError
from lowlight.core.folders import make_folder
from lowlight.core.photo import Picture, RawFrame
from lowlight.ops.orient import turn_upright
from lowlight.restorer import Restored
from lowlight.workflows.enhancing.photo_steps import finished
from lowlight.writers import WriterOptions, write_picture

Pixels = npt.NDArray[np.uint16]

MOST_SAMPLES = 99
SPREAD_SCALE = 16  # the map's white is a deviation of 1/16 of the picture's white
WHITE = 65535
SEEN = 257  # 16-bit steps in one 8-bit step
BAND_ROWS = 256


@dataclass(frozen=True)
class SampleOptions:
    """How many hypotheses of each picture are drawn, and how. Impossible values raise `UsageError`."""

    count: int = 0
    temperature: float = 1.0  # times the prior's deviation
    seed: int = 0
    fix_from: int | None = None  # of a pyramid: this level and coarser ones are not drawn

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.count == 1 or not 0 <= self.count <= MOST_SAMPLES:
            raise UsageError(f"{self.count} samples cannot be compared; expected 2 to {MOST_SAMPLES}, or 0 for none")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"the temperature is {self.temperature:g}; expected 0 (the mean) or more, 1 as trained")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed is {self.seed}; expected 0 to {2**32 - 1}")

    def check_levels(self, finest: int, levels: int) -> None:
        """Refuse a level from which on nothing would be drawn, of networks that run `finest` to `levels`."""
        if self.fix_from is None or finest < self.fix_from <= levels:
            return
        if levels == 1:
            raise UsageError("these weights have no levels; leave out --fix-from, or take weights of a pyramid")
        raise UsageError(
            f"--fix-from is {self.fix_from}, and of these weights the levels {finest} (finest) to {levels} are run; "
            f"expected {finest + 1} to {levels}, so that there is something left to draw"
            if finest < levels
            else f"only level {levels} of these weights is run; leave out --fix-from or --levels"
        )

    def generator(self, number: int) -> torch.Generator:
        """The source of one sample's draws, the same for every photo whatever was done before."""
        return torch.Generator().manual_seed(sample_seed(self.seed, number))

    def paths(self, output: Path) -> list[Path]:
        """Where the samples of a picture go, and last the map of their spread."""
        if not self.count:
            return []
        return [*sample_paths(output, self.count), output.with_name(f"{output.stem}.spread.png")]


def sample_seed(seed: int, number: int) -> int:
    """What the draws of one sample are seeded with; numbers, of which there are up to 99, begin at 1."""
    return (seed << 7) + number


def sample_paths(output: Path, count: int) -> list[Path]:
    """Where so many samples of a picture go."""
    return [output.with_name(f"{output.stem}.sample-{n:02}{output.suffix}") for n in range(1, count + 1)]


class Spread:
    """Collects samples uint16 `[H, W, C]` one after another; memory is a few pictures whatever their number."""

    def __init__(self) -> None:
        self.count = 0
        self._first: npt.NDArray[np.float32] | None = None

    def add(self, pixels: Pixels) -> None:
        """Take the next sample."""
        self.count += 1
        if self._first is None:
            # Differences to the first sample are small, so their squares lose nothing in 32 bits.
            self._first = pixels.astype(np.float32)
            self._sums = np.zeros_like(self._first)
            self._squares = np.zeros((*pixels.shape[:2], 1), np.float32)
            return
        for top in range(0, len(pixels), BAND_ROWS):
            rows = slice(top, top + BAND_ROWS)
            difference = pixels[rows] - self._first[rows]
            self._sums[rows] += difference
            self._squares[rows] += np.square(difference).sum(axis=2, keepdims=True)

    def deviation(self) -> npt.NDArray[np.float32]:
        """Deviation over the samples in 16-bit steps `[H, W, 1]`: the root of its mean square over the channels."""
        assert self._first is not None
        shared = np.square(self._sums).sum(axis=2, keepdims=True) / self.count
        variance = (self._squares - shared) / ((self.count - 1) * self._sums.shape[2])
        return np.asarray(np.sqrt(np.maximum(variance, 0)), dtype=np.float32)


def spread_map(deviation: npt.NDArray[np.float32]) -> Pixels:
    """The deviation as a picture, times `SPREAD_SCALE`: 65535 is 1/16 of white or more."""
    return np.asarray(np.minimum(deviation * SPREAD_SCALE + 0.5, WHITE)).astype(np.uint16)


def spread_note(deviation: npt.NDArray[np.float32], count: int) -> str:
    """What the user should know of the spread."""
    mean, largest = float(deviation.mean()), float(deviation.max())
    if mean < 1:
        return (
            f"The {count} samples are all but the same: they differ by {mean:.2g} 16-bit steps on average, "
            f"{largest:.2g} at most, so the latents of these weights carry next to nothing here."
        )
    little = ", which is less than an 8-bit step and too little to be seen" if mean < SEEN else ""
    return (
        f"The {count} samples deviate by {100 * mean / WHITE:.2g} % of white on average{little}, and by "
        f"{100 * largest / WHITE:.2g} % at most; in the map white is {100 / SPREAD_SCALE:g} %."
    )


class SampleWriter:
    """Writes the samples of one photo and, at the end, the map of their spread.

    `paths` are those of `SampleOptions.paths`. At most two samples are in memory beside what the spread needs.
    """

    def __init__(
        self,
        paths: tuple[Path, ...],
        frame: RawFrame,
        recorded: tuple[str, ...],
        options: SampleOptions,
        writer: WriterOptions,
        pool: Executor,
    ) -> None:
        self._paths, self._frame, self._recorded = paths, frame, recorded
        self._options, self._writer, self._pool = options, writer, pool
        self._spread = Spread()
        self._writing: deque[Future[None]] = deque()

    def add(self, restored: Restored) -> None:
        """Take the next sample and have it written."""
        self._spread.add(restored.pixels)
        options = self._options
        drawn = f"sample {self._spread.count}, seed {options.seed}, temperature {options.temperature:g}"
        if options.fix_from is not None:
            drawn += f", levels from {options.fix_from} on fixed"
        picture = finished(self._frame, restored, (*self._recorded, drawn))
        path = self._paths[self._spread.count - 1]
        if self._writing:
            self._writing.popleft().result()
        self._writing.append(self._pool.submit(self._write, path, picture, self._writer))

    def finish(self) -> list[str]:
        """Write the map once all samples are on disk, and give what is to be said about it."""
        while self._writing:
            self._writing.popleft().result()
        deviation = self._spread.deviation()
        shown = turn_upright(spread_map(deviation), self._frame.orientation)
        about = f"deviation of {self._spread.count} samples, white is 1/{SPREAD_SCALE}"
        picture = Picture(shown, self._frame.metadata, (*self._recorded, about))
        self._write(self._paths[-1], picture, WriterOptions(bits=16))
        return [spread_note(deviation, self._spread.count)]

    @staticmethod
    def _write(path: Path, picture: Picture, options: WriterOptions) -> None:
        make_folder(path.parent)
        write_picture(path, picture, options)
