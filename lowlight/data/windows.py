"""Windows of a packed frame and of its truth, flipped alike.

Where the picture has packed size the packed planes are flipped, as the thesis does. Where it has the sensor's size
a flipped plane would lie beside its truth by a pixel, so the mosaic itself is flipped and cut again from a red pixel
on. Small frames are mirrored at the bottom and the right.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lowlight.core.photo import RGGB
from lowlight.data.decoding import SCALE, Pixels, dequantise, unpack
from lowlight.raw.bayer import plane_offsets

T = TypeVar("T", bound=np.generic)
Planes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Flips:
    """Three coins of a patch, applied in this order."""

    vertical: bool
    horizontal: bool
    transpose: bool

    def apply(self, pixels: npt.NDArray[T]) -> npt.NDArray[T]:
        """Flip an array `[H, W, ...]`."""
        if self.vertical:
            pixels = pixels[::-1]
        if self.horizontal:
            pixels = pixels[:, ::-1]
        return pixels.swapaxes(0, 1) if self.transpose else pixels


def packed_window(
    stored: Pixels, truth: Pixels, scale: int, tile: int, flips: Flips, rng: np.random.Generator
) -> tuple[Planes, Planes]:
    """Cut a window at packed size: planes `[4, t, t]` and truth `[3, t, t]`, float32 in [0, 1].

    With `scale` 2 the truth has twice the packed size; its encoded values are averaged.
    """
    limit = [min(a, b // scale) for a, b in zip(stored.shape, truth.shape[:2], strict=False)]
    (top, height), (left, width) = (_span(size, tile, rng) for size in limit)
    dark = stored[top : top + height, left : left + width]
    bright = truth[scale * top : scale * (top + height), scale * left : scale * (left + width)]
    picture = bright.astype(np.float32) / np.float32(SCALE)
    if scale == 2:
        picture = (picture[0::2, 0::2] + picture[1::2, 0::2] + picture[0::2, 1::2] + picture[1::2, 1::2]) / 4
    dark = flips.apply(mirror_to(dark, tile, tile))
    picture = flips.apply(mirror_to(picture, tile, tile))
    return dequantise(dark), np.ascontiguousarray(picture.transpose(2, 0, 1))


def mosaic_window(
    stored: Pixels, truth: Pixels, tile: int, flips: Flips, rng: np.random.Generator
) -> tuple[Planes, Planes]:
    """Cut a window at the sensor's size: planes `[4, t, t]` and truth `[3, 2t, 2t]`, float32 in [0, 1].

    A mirrored axis of an RGGB mosaic begins with green: one pixel is dropped there, so that the first is red again,
    and the window needs one more at its far end. Transposing keeps red in the corner and swaps the greens.
    """
    spare = (int(flips.vertical), int(flips.horizontal))
    (top, height), (left, width) = (
        _span(size, tile + extra, rng) for size, extra in zip(stored.shape[:2], spare, strict=True)
    )
    mosaic = unpack(np.ascontiguousarray(stored[top : top + height, left : left + width]))
    bright = truth[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
    # Mirroring about a pixel keeps the colours in step, as it does at the border of a frame.
    full = tuple(2 * (tile + extra) for extra in spare)
    mosaic, bright = (mirror_to(part, *full) for part in (mosaic, bright))
    inside = tuple(slice(extra, extra + 2 * tile) for extra in spare)
    mosaic, bright = flips.apply(mosaic[inside]), flips.apply(bright[inside])
    planes = np.stack([mosaic[row::2, col::2] for row, col in plane_offsets(RGGB)], axis=-1)
    return dequantise(planes), dequantise(bright)


def _span(size: int, wanted: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw where a window begins, both ends included, and say how long it is: shorter on a small frame."""
    if size <= wanted:
        return 0, size
    return int(rng.integers(size - wanted + 1)), wanted


def mirror_to(pixels: npt.NDArray[T], height: int, width: int) -> npt.NDArray[T]:
    """Mirror `[H, W, ...]` about its last row and column up to a size, as often as that takes."""
    below, right = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if not (below or right):
        return pixels
    return np.pad(pixels, ((0, below), (0, right), *((0, 0),) * (pixels.ndim - 2)), mode="reflect")
