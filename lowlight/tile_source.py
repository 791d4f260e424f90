"""What a network reads of each tile of a frame, or of the aligned frames of a scene."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.burst import Burst
from lowlight.core.photo import RawFrame
from lowlight.core.restoration import ModelTraits, Noise
from lowlight.ops.color import apply_matrix, encode, luma
from lowlight.ops.dark_srgb import dark_srgb
from lowlight.ops.demosaic import REACH_PX, demosaic
from lowlight.ops.exposure import (
    BASE_BLOCK_PX,
    amplify,
    block_means,
    develop_means,
    interpolation,
    packed_to_rgb,
)
from lowlight.ops.tiling import TileGrid
from lowlight.tile_batches import TileInput, TileStack

SEEN_ROWS = 64  # packed rows brought to what a network reads at a time
RAW_CHANNELS, SRGB_CHANNELS = 4, 3  # a network reads packed RAW, or dark sRGB at packed size (thesis, task 2)


def noise_fields(
    traits: ModelTraits, padded: tuple[int, int], generator: torch.Generator, temperature: float = 1.0
) -> Noise:
    """Draw normal numbers for the latents of a whole frame of `padded` packed height and width, tiles included.

    A latent without extent gets one `[Z]`, which all tiles share; a spatial one a field `[Z, h', w']`, which tiles
    cut their part of, so that neighbours agree.
    """
    fields = []
    for channels, stride in traits.latents:
        extent = () if stride is None else tuple(-(-length // stride) for length in padded)
        fields.append(temperature * torch.randn((channels, *extent), generator=generator, device=generator.device))
    return tuple(fields)


class TileSource:
    """Gives the network's input for any tile of a scene, reading only the rows a row of tiles needs.

    `ratio` amplifies the reference's light. `noise` has a field for each latent, of the whole frame. Inputs are made on
    `device`; rows of a scene that lies elsewhere are brought there.
    """

    def __init__(
        self,
        scene: RawFrame | Burst,
        ratio: float,
        grid: TileGrid,
        traits: ModelTraits,
        strength: float,
        noise: Noise | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.burst = scene if isinstance(scene, Burst) else Burst.single(scene)
        self.ratio, self.grid, self.traits, self.strength, self.noise = ratio, grid, traits, strength, noise
        frame = self.burst.reference
        self.gains = torch.tensor(frame.wb_gains, device=self.device)
        matrix = frame.camera_to_srgb
        self.matrix = None if matrix is None else torch.tensor(np.asarray(matrix), dtype=torch.float32).to(self.device)
        self._between: dict[tuple[int, int], Tensor] = {}  # interpolation, by blocks and first row or column
        self.coarse = self._coarse() if traits.base == "lowpass" and strength > 0 else None

    def tiles(self, dtype: torch.dtype = torch.float32) -> Iterator[TileInput]:
        """Every tile in row-major order, frames as `dtype`."""
        tile, u = self.grid.tile, self.traits.upscale
        for row, band in zip(self.grid.rows, self._bands(dtype), strict=True):
            mixed = self._developed(row) if self.strength < 1 else None
            for col in self.grid.cols:
                developed = None if mixed is None else mixed[:, :, u * col : u * (col + tile)]
                yield TileInput(band[..., col : col + tile], self._base(row, col), developed, self._noise(row, col))

    def _bands(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """What the network reads of each row of tiles, `[N, C, tile, padded width]`, channels last in memory.

        Rows that two rows of tiles share are made once, and a few at a time, which stay in the processor's cache.
        """
        tile = self.grid.tile
        shape = (self._members, tile, self.grid.padded[1], self.traits.in_channels)
        held, done = torch.empty(shape, dtype=dtype, device=self.device), 0
        for row in self.grid.rows:
            band = torch.empty_like(held)
            over = row + tile > self.grid.height  # the lower end is mirrored from all that there is
            kept = 0 if over else max(done - row, 0)
            band[:, :kept] = held[:, tile - kept :]
            while kept < tile:
                stop = tile if over else min(kept + SEEN_ROWS, tile)
                for member, packed in enumerate(self._packed_rows(row + kept, row + stop)):
                    seen = self._seen(self._padded(packed, stop - kept)).to(dtype)
                    for channel, plane in enumerate(seen):  # all in one step take twice as long
                        band[member, kept:stop, :, channel] = plane
                kept = stop
            yield band.permute(0, 3, 1, 2)
            held, done = band, row + tile

    def stacks(self, tiles: int, dtype: torch.dtype) -> Iterator[TileStack]:
        """The same by whole rows of tiles, at least one, and as many as make at most `tiles`; frames as `dtype`.

        For devices that like few large steps: a tile by itself costs a dozen small ones.
        """
        tile, u = self.grid.tile, self.traits.upscale
        side = torch.arange(tile, device=self.device)
        cols = torch.tensor(self.grid.cols, device=self.device)[:, None] + side
        fine = (u * cols[:, :1] + torch.arange(u * tile, device=self.device)).flatten()
        across = self._across() if self.coarse is not None else None
        together = max(tiles // len(self.grid.cols), 1)
        for first in range(0, len(self.grid.rows), together):
            starts = self.grid.rows[first : first + together]
            height = starts[-1] + tile - starts[0]
            packed = self._packed_rows(starts[0], starts[0] + height)
            band = torch.stack([self._seen(self._padded(each, height)).to(dtype) for each in packed])
            rows = torch.tensor(starts, device=self.device)[:, None] - starts[0] + side
            # Channels last, as networks read them: one copy for all tiles.
            cut = band.permute(2, 3, 0, 1).contiguous()[rows[:, None, :, None], cols[None, :, None, :]]
            frames = cut.flatten(0, 1).permute(0, 3, 4, 1, 2)
            base = developed = None
            if across is not None:
                base = self._apart(torch.stack([self._down(row) @ across for row in starts]), fine)
            if self.strength < 1:
                developed = self._apart(torch.stack([self._developed(row) for row in starts]), fine)
            yield TileStack(frames, base, developed, self._noise_of(starts))

    def _apart(self, bands: Tensor, fine: Tensor) -> Tensor:
        """Rows of tiles `[R, C', ut, width]` cut into tiles, `[R * cols, C', ut, ut]`; they may overlap."""
        rows, channels, side, _ = bands.shape
        cut = bands.index_select(3, fine).view(rows, channels, side, -1, side)
        return cut.permute(0, 3, 1, 2, 4).flatten(0, 1)

    def _down(self, row: int) -> Tensor:
        """The coarse picture stretched along the rows of a row of tiles, `[C', ut, wb]`."""
        assert self.coarse is not None
        weights, blocks = self._interpolation(self.coarse.shape[1], row)
        return weights @ self.coarse[:, blocks]

    def _across(self) -> Tensor:
        """The matrix that stretches the coarse picture's rows over the padded width, `[wb, u * width]`."""
        assert self.coarse is not None
        width = self.grid.padded[1]
        return interpolation(self.coarse.shape[2], 0, width, self.traits.upscale, BASE_BLOCK_PX, self.device).T

    def _noise_of(self, starts: tuple[int, ...]) -> Noise | None:
        if self.noise is None:
            return None
        drawn = [self._noise(row, col) or () for row in starts for col in self.grid.cols]
        return tuple(torch.stack(each) for each in zip(*drawn, strict=True))

    @property
    def _members(self) -> int:
        """How many frames the network gets."""
        return len(self.burst.frames) if self.traits.max_frames > 1 else 1

    def _packed_rows(self, start: int, stop: int) -> Iterator[Tensor]:
        """Rows of each frame for a network of sets, of their mean for any other; fewer at the frame's end."""
        stop = min(stop, self.grid.height)
        if self.traits.max_frames > 1:
            yield from (self.burst.member(n, start, stop).to(self.device) for n in range(len(self.burst.frames)))
        else:
            yield self._average(start, stop)

    def _average(self, start: int, stop: int) -> Tensor:
        return self.burst.average(start, stop).to(self.device)

    def _padded(self, packed: Tensor, height: int) -> Tensor:
        """Rows of tiles, mirrored below and right as far as tiles reach over the frame."""
        width = self.grid.padded[1]
        if packed.shape[1] < height or packed.shape[2] < width:
            return _reflect_to(packed, height, width)
        return packed

    def _noise(self, row: int, col: int) -> Noise | None:
        """The part of every latent's field that lies under a tile."""
        if self.noise is None:
            return None
        cuts = []
        for drawn, (_, stride) in zip(self.noise, self.traits.latents, strict=True):
            if stride is not None:
                side = self.grid.tile // stride
                drawn = drawn[:, row // stride : row // stride + side, col // stride : col // stride + side]
            cuts.append(drawn)
        return tuple(cuts)

    def _seen(self, packed: Tensor) -> Tensor:
        """What the network reads of packed rows `[4, h, w]`: them amplified, or developed to amplified sRGB."""
        if self.traits.in_channels == RAW_CHANNELS:
            return amplify(packed, self.ratio, self.gains, self.traits.input_colour)
        matrix = torch.eye(3, device=self.device) if self.matrix is None else self.matrix
        ratio = torch.tensor([self.ratio], device=self.device)
        return dark_srgb(packed[None], ratio, self.gains[None], matrix, self.traits.amplify)[0]

    def _base(self, row: int, col: int) -> Tensor | None:
        if self.coarse is None:
            return None
        (rows, below), (cols, right) = (
            self._interpolation(count, start) for count, start in zip(self.coarse.shape[1:], (row, col), strict=True)
        )
        return rows @ self.coarse[:, below, right] @ cols.T

    def _interpolation(self, count: int, start: int) -> tuple[Tensor, slice]:
        """The matrix for one axis of a tile, and which blocks it is to be multiplied with: those at the tile."""
        tile, u, block = self.grid.tile, self.traits.upscale, BASE_BLOCK_PX
        first, last = max(start // block - 1, 0), min((start + tile) // block + 2, count)
        place = last - first, start - first * block
        if place not in self._between:
            self._between[place] = interpolation(*place, tile, u, block, self.device)
        return self._between[place], slice(first, last)

    def _coarse(self) -> Tensor:
        """The low-pass base of the whole frame, so that neighbouring tiles agree."""
        bands = []
        rows = BASE_BLOCK_PX * 16
        for top in range(0, self.grid.height, rows):
            packed = self._average(top, min(top + rows, self.grid.height))
            balanced = amplify(packed, self.ratio, self.gains, "wb")
            bands.append(block_means(packed_to_rgb(balanced), BASE_BLOCK_PX))
        return develop_means(torch.cat(bands, dim=1), self.traits.output_colour, self.matrix)

    def _developed(self, row: int) -> Tensor:
        """The plain picture of a row of tiles in the output's colours, `[C', ut, at least ut]`."""
        u, tile, height = self.traits.upscale, self.grid.tile, self.grid.height
        low, high = max(row - REACH_PX, 0), min(row + tile + REACH_PX, height)
        balanced = amplify(self._average(low, high), self.ratio, self.gains, "wb")
        rgb = demosaic(balanced) if u == 2 else packed_to_rgb(balanced)
        rgb = rgb[:, u * (row - low) : u * (row - low + tile)]
        if self.traits.output_colour == "srgb" and self.matrix is not None:
            rgb = apply_matrix(rgb, self.matrix).clamp_(0, 1)
        picture = encode(rgb)
        if self.traits.out_channels == 1:
            picture = luma(picture)
        below, right = (
            max(u * size - have, 0) for size, have in zip((tile, self.grid.padded[1]), picture.shape[1:], strict=True)
        )
        return F.pad(picture, (0, right, 0, below))  # cut off again: it lies outside the frame


def _reflect_to(planes: Tensor, height: int, width: int) -> Tensor:
    """Mirror a small frame at the bottom and right up to a tile, again and again where one mirror is too short."""
    while planes.shape[1] < height or planes.shape[2] < width:
        down = min(height - planes.shape[1], planes.shape[1] - 1)
        right = min(width - planes.shape[2], planes.shape[2] - 1)
        mode = "reflect" if max(down, right) > 0 else "replicate"
        if mode == "replicate":
            down, right = height - planes.shape[1], width - planes.shape[2]
        planes = F.pad(planes[None], (0, right, 0, down), mode=mode)[0]
    return planes
