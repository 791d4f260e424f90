"""Merging overlapping tiles into one picture, band by band.

The thesis weighs each pixel of a tile by the inverse of its distance to the tile's centre, to a power p (2 by
default, 0 is plain averaging). The feathered merge weighs by a product of two profiles that fall towards the tile's
border, which leaves a smaller step where a tile ends.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Merge = Literal["idw", "feather"]
FloatArray = npt.NDArray[np.float32]
Halves = tuple[tuple[slice, slice], tuple[slice, slice]]

GIVEN_ROWS = 16  # finished rows given out at a time
MOST_SCALES = 8  # kept for rows of tiles with different neighbours


def tile_weights(tile_px: int, merge: Merge = "idw", power: float = 2.0, halo_px: int = 0) -> FloatArray:
    """Weight of each pixel of a tile, float32 `[tile_px, tile_px]`, positive, largest value 1.

    `idw`: distance to the centre `(tile_px - 1) / 2` to the power `-power`; for odd sizes the centre pixel's
    distance is taken as 1/2. `feather`: a triangle along each axis; `power` is not used. The outermost `halo_px`
    pixels, which a network may get wrong because it sees zeros beyond them, are faded out on top (thesis: 0); where
    no other tile covers them they still count alone.
    """
    offset = np.abs(np.arange(tile_px) - (tile_px - 1) / 2)
    inside = tile_px / 2 - offset  # distance of a pixel's centre to the border: 1/2, 3/2, ...
    if merge == "feather":
        weights = np.outer(inside, inside)
    else:
        distance = np.hypot(offset[:, None], offset[None, :])
        weights = np.maximum(distance, 0.5) ** -power
    if halo_px:
        fade = np.minimum(inside / halo_px, 1) ** 2
        weights = weights * np.outer(fade, fade)
    return np.asarray(weights / weights.max(), dtype=np.float32)


class BandBlender:
    """Adds tiles row by row and gives back finished bands; memory is a few bands, whatever the number of tiles.

    `rows` and `cols` are the tile starts and `width` the padded picture's width, all in output pixels. Each tile is
    clamped to [0, 1] before it is merged, as the thesis does. Works on CPU arrays; what the summed weights make of a
    row is known once for all rows of tiles with the same neighbours. All arrays are made once: fresh ones would have
    to be paged in again for every tile. Tiles are weighted and added in one pass, which takes half of the time that
    two take. Finished rows are given out a few at a time, so that whoever takes them works
    in the processor's cache.
    """

    def __init__(
        self,
        rows: tuple[int, ...],
        cols: tuple[int, ...],
        width: int,
        channels: int,
        weights: FloatArray,
    ) -> None:
        self.rows, self.cols, self.width, self.weights = rows, cols, width, weights
        self.tile = weights.shape[0]
        # Row r of the picture lies in row r % tile. The tensors are other names of the same memory.
        self._sum = np.zeros((channels, self.tile, width), dtype=np.float32)
        self._sum_tensor, self._weights_tensor = torch.from_numpy(self._sum), torch.from_numpy(weights)
        self._begun = False
        self._scales: dict[tuple[int, ...], FloatArray] = {}
        self._band = np.empty((channels, GIVEN_ROWS, width), dtype=np.float32)

    def merge(self, tiles: Iterator[FloatArray]) -> Iterator[tuple[int, FloatArray]]:
        """Take tiles `[C, tile, tile]` in row-major order; yield `(first_row, band [C, n, width])` top to bottom.

        The tiles are clamped in place. A band is valid until the next one is asked for, and may be changed.
        """
        if self._begun:  # the last picture was left unfinished
            self._sum.fill(0)
        self._begun = True
        for row, stop in zip(self.rows, [*self.rows[1:], self.rows[-1] + self.tile], strict=True):
            start = row % self.tile
            halves = ((slice(start, None), slice(self.tile - start)), (slice(start), slice(self.tile - start, None)))
            for col in self.cols:
                self._add(torch.from_numpy(next(tiles)), col, halves)
            yield from self._finished(row, stop)
        self._begun = False

    def _add(self, tile: Tensor, col: int, halves: Halves) -> None:
        tile.clamp_(0, 1)
        for kept, of_tile in halves:
            place = self._sum_tensor[:, kept, col : col + self.tile]
            place.addcmul_(tile[:, of_tile], self._weights_tensor[of_tile])

    def _finished(self, first: int, stop: int) -> Iterator[tuple[int, FloatArray]]:
        """Give out the rows that no further tile reaches, and leave zeros in their place."""
        scale, top = self._scale(first, stop), first
        while top < stop:
            at = top % self.tile
            count = min(GIVEN_ROWS, stop - top, self.tile - at)
            rows, band = self._sum[:, at : at + count], self._band[:, :count]
            np.multiply(rows, scale[top - first :][:count], out=band)
            rows.fill(0)
            yield top, band
            top += count

    def _scale(self, first: int, stop: int) -> FloatArray:
        """One over the weights that rows got, `[stop - first, width]`; a row of tiles begins at the first of them."""
        reaching = tuple(row - first for row in self.rows if row < stop and row + self.tile > first)
        key = (stop - first, *reaching)
        if key not in self._scales:
            of_column = np.zeros((self.tile, self.width), dtype=np.float32)  # every row of tiles has the same columns
            for col in self.cols:
                of_column[:, col : col + self.tile] += self.weights
            total = np.zeros((stop - first, self.width), dtype=np.float32)
            for row in reaching:
                begin, end = max(row, 0), min(row + self.tile, len(total))
                total[begin:end] += of_column[begin - row : end - row]
            if len(self._scales) == MOST_SCALES:  # grids that are not even would fill the memory
                self._scales.clear()
            self._scales[key] = np.divide(1, total, out=total)
        return self._scales[key]


def merge_tensors(
    stacks: Iterator[Tensor], rows: tuple[int, ...], cols: tuple[int, ...], size: tuple[int, int], weights: Tensor
) -> Tensor:
    """Merge stacks of whole rows of tiles `[R * cols, C, tile, tile]` into a picture `[C, *size]`, where `weights` are.

    What `BandBlender` does but for rounding, for devices that hold a picture with ease and like few large steps: the
    rows of a stack are merged side by side. The tiles are clamped in place.
    """
    tile = len(weights)
    strip = torch.zeros(tile, size[1], device=weights.device)
    for col in cols:
        strip[:, col : col + tile] += weights
    norm = torch.zeros(size, device=weights.device)
    total: Tensor | None = None
    tops = iter(rows)
    for stack in stacks:
        tiles = stack.clamp_(0, 1).view(-1, len(cols), *stack.shape[1:])
        channels = tiles.shape[2]
        if total is None:
            total = torch.zeros(channels, *size, device=weights.device)
        merged = torch.zeros(len(tiles), channels, tile, size[1], device=weights.device)
        for place, col in enumerate(cols):
            merged[..., col : col + tile].addcmul_(tiles[:, place], weights)
        for of_row in merged:
            row = next(tops)
            total[:, row : row + tile] += of_row
            norm[row : row + tile] += strip
    assert total is not None, "a picture has at least one tile"
    return total.mul_(norm.reciprocal_())
