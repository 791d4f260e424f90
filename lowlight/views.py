"""The same scene turned and mirrored, and what was made of it turned back.

A network's mean over such views is better than its answer to any one: what it guesses differs from view to view and
averages out, while the scene stays. Turning a Bayer mosaic moves its colours, so every view is packed from another
corner of the 2x2 block, and the blocks that a network leaves visible average out as well. Source: geometric
self-ensemble, R. Timofte et al., Seven ways to improve example-based single image super resolution, CVPR 2016.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.burst import AlignedFrame, Burst
from lowlight.core.photo import CfaPattern, PerColour, RawFrame
from lowlight.ops.agreement import AGREEMENT_BLOCK
from lowlight.raw.bayer import origin_padding

Value = TypeVar("Value", bound=np.generic)
Window = tuple[int, int, int, int]  # x, y, width, height in sensor pixels of the visible mosaic


@dataclass(frozen=True)
class View:
    """Rows and columns exchanged or not, then each mirrored or not."""

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False

    def scene(self, burst: Burst) -> Burst:
        """The frames as this view shows them; mosaics are not copied."""
        return replace(burst, frames=tuple(self._aligned(aligned) for aligned in burst.frames))

    def window(self, window: Window, size: tuple[int, int]) -> Window:
        """Where a window of a mosaic of `size` (height, width) lies in this view."""
        x, y, width, height = window
        rows, cols = size
        if self.transpose:
            x, y, width, height, rows, cols = y, x, height, width, cols, rows
        return (cols - x - width if self.flip_cols else x, rows - y - height if self.flip_rows else y, width, height)

    def seen(self, picture: npt.NDArray[Value]) -> npt.NDArray[Value]:
        """A picture `[h, w, ...]` of the scene as this view shows it; the same memory."""
        turned = picture.swapaxes(0, 1) if self.transpose else picture
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_cols else 1]

    def frame(self, frame: RawFrame) -> RawFrame:
        """One frame as this view shows it."""
        # The smallest pattern that ends on the colours that the mosaic ends on.
        rows, cols = (2 + length % 2 for length in frame.size)
        colours = self.seen(np.array([[frame.pattern[i % 2][j % 2] for j in range(cols)] for i in range(rows)]))
        pattern, exchange = _with_first_green_beside_red(colours)
        turned = replace(frame, mosaic=self.seen(frame.mosaic), pattern=pattern)
        if not exchange:
            return turned
        black, white, wb = (_greens_exchanged(values) for values in (frame.black, frame.white, frame.wb))
        daylight = None if frame.daylight_wb is None else _greens_exchanged(frame.daylight_wb)
        return replace(turned, black=black, white=white, wb=wb, daylight_wb=daylight)

    def _aligned(self, aligned: AlignedFrame) -> AlignedFrame:
        frame = self.frame(aligned.frame)
        down, right = aligned.shift[::-1] if self.transpose else aligned.shift
        shift = (-down if self.flip_rows else down, -right if self.flip_cols else right)
        if aligned.trust is None:
            return replace(aligned, frame=frame, shift=shift)
        trust = aligned.trust.T if self.transpose else aligned.trust
        before = origin_padding(aligned.frame.pattern)
        axes = zip(
            (self.flip_rows, self.flip_cols),
            frame.size,
            before[::-1] if self.transpose else before,
            origin_padding(frame.pattern),
            strict=True,
        )
        for axis, (flip, length, was, now) in enumerate(axes):
            trust = _seen_blocks(trust.movedim(axis, 0), flip, length, was, now).movedim(0, axis)
        return replace(aligned, frame=frame, shift=shift, trust=trust)


VIEWS: dict[int, tuple[View, ...]] = {
    1: (View(),),
    2: (View(), View(False, True, True)),
    4: (View(), View(False, True, True), View(True, False, True), View(True, True, False)),
    8: tuple(View(t, rows, cols) for t in (False, True) for rows in (False, True) for cols in (False, True)),
}


def add_to_mean(mean: npt.NDArray[np.uint16], values: npt.NDArray[np.float32], number: int) -> None:
    """Make the mean of `number - 1` pictures that of `number`, in place, rounded; the first picture is put there.

    `values` are the further picture's, 0 to 65535 and not rounded, and are lost.
    """
    if number > 1:
        values *= np.float32(1 / number)
        values += mean * np.float32(1 - 1 / number)
    values += np.float32(0.5)
    mean[...] = values.astype(np.uint16)


def _with_first_green_beside_red(colours: npt.NDArray[np.int_]) -> tuple[CfaPattern, bool]:
    """The pattern in LibRaw's names, where G1 lies in red's row, and whether the greens had to be exchanged."""
    first, second = (tuple(int(colour) for colour in row[:2]) for row in colours[:2])
    exchange = {0, 3} in (set(first), set(second))
    if exchange:
        names = {1: 3, 3: 1}
        first, second = (tuple(names.get(colour, colour) for colour in row) for row in (first, second))
    return ((first[0], first[1]), (second[0], second[1])), exchange


def _greens_exchanged(values: PerColour) -> PerColour:
    red, first, blue, second = values
    return red, second, blue, first


def _seen_blocks(trust: Tensor, flip: bool, length: int, was: int, now: int) -> Tensor:
    """Weights of blocks along the first axis, taken anew at the blocks of a view.

    `length` is the mosaic's along that axis, `was` and `now` are the rows mirrored in front of it to begin with red.
    Packed row y of the view shows the light of row `(length - 2 + was + now) / 2 - y`, or `y + (was - now) / 2`.
    """
    rows = -(-((length + now + 1) // 2) // AGREEMENT_BLOCK)
    centres = (torch.arange(rows) + 0.5) * AGREEMENT_BLOCK - 0.5
    source = (length - 2 + was + now) / 2 - centres if flip else centres + (was - now) / 2
    place = ((source + 0.5) / AGREEMENT_BLOCK - 0.5).clamp(0, len(trust) - 1)
    lower = place.long().clamp(max=max(len(trust) - 2, 0))
    upper = (lower + 1).clamp(max=len(trust) - 1)
    return torch.lerp(trust[lower], trust[upper], (place - lower).to(trust)[:, None])
