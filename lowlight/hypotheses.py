"""Hypotheses of one scene: pictures from draws of a network's latents, without a trace of its tiles.

Tiles share their draws (see `Restorer.noise`), but that is not enough. Where a tile ends, an inverse-distance merge
leaves a step, and zeros beyond a tile's border leave their mark; so hypotheses are merged by feathering. And what a
latent without extent does is bound to places within a tile, so that overlapping tiles move the same pixel differently
and their average deviates less; so the deviation from the mean picture is brought back to that of one tile.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lowlight.burst import Burst
from lowlight.core.photo import RawFrame
from lowlight.core.restoration import Noise
from lowlight.ops.blending import FloatArray, tile_weights
from lowlight.ops.gaussian import fix_from
from lowlight.ops.overlaps import Overlaps, kept_deviation
from lowlight.ops.tiling import TileGrid
from lowlight.restorer import Pixels, Restored, Restorer
from lowlight.tile_batches import BatchRunner
from lowlight.tile_source import TileSource
from lowlight.views import Window

BAND_ROWS = 256
PROBES = 4  # pairs of tiles whose agreement is measured
PROBE_SEED = 1
WHITE = 65535

Pair = tuple[tuple[int, ...], tuple[int, ...]]  # rows and columns of two neighbouring tiles, packed pixels


class Hypotheses:
    """The hypotheses of a frame or a scene, in the window and at the ratio that its picture has.

    `temperature` scales the deviation of the priors they are drawn from. Of a pyramid only the levels finer than
    `fix_from` are drawn; the others stay at their means. Ensembles and detail are left out, and tiles
    are feathered, whatever the options say. `agreement` is the correlation of what a draw does in two tiles where they
    overlap; below 1 the mean picture is needed and computed here. `between` is called before every batch of tiles.
    What `Restorer.photo` raises, this raises too.
    """

    def __init__(
        self,
        restorer: Restorer,
        scene: RawFrame | Burst,
        ratio: float,
        temperature: float = 1.0,
        *,
        window: Window | None = None,
        fix_from: int | None = None,
        keep_linear: bool = False,
        between: Callable[[], None] | None = None,
    ) -> None:
        self.burst = restorer.seen(scene)
        options = replace(restorer.options, merge="feather", ensemble=1, detail=False)
        self.restorer = type(restorer)(restorer.model, options, restorer.device)
        self.ratio, self.temperature, self.fix_from = ratio, temperature, fix_from
        self.keep_linear, self.between = keep_linear, between
        size = self.burst.reference.size
        self.window = window or (0, 0, size[1], size[0])
        self.agreement = self._agreement()
        self._mean = self._picture(None) if self.agreement < 1 else None

    def draw(self, generator: torch.Generator) -> Restored:
        """One hypothesis, which the generator's state alone decides."""
        drawn = self._picture(self._noise(generator))
        if self._mean is not None:
            self._lift(drawn.pixels, self._mean.pixels)
            if drawn.linear is not None and self._mean.linear is not None:
                self._lift(drawn.linear.pixels, self._mean.linear.pixels)
        return drawn

    def _noise(self, generator: torch.Generator) -> Noise:
        noise = self.restorer.noise(self.burst.reference, generator, self.temperature)
        return noise if self.fix_from is None else fix_from(noise, self.fix_from)

    def _picture(self, noise: Noise | None) -> Restored:
        return self.restorer.start(
            self.burst,
            self.ratio,
            window=self.window,
            keep_linear=self.keep_linear,
            noise=noise,
            between=self.between,
        )()

    def _lift(self, drawn: Pixels, mean: Pixels) -> None:
        """Bring the deviation of a sample from the mean back to that of one tile, in place."""
        traits = self.restorer.traits
        grid, rows, cols = self.restorer.tiles(self.burst, self.window)
        u, left = traits.upscale, traits.upscale * grid.cols[0]
        overlaps = Overlaps(
            tuple(u * row for row in grid.rows),
            tuple(u * col - left for col in grid.cols),
            u * (grid.cols[-1] + traits.tile) - left,
            self._weights(),
        )
        step = 2 if self.restorer.options.size == "half" and u == 2 else 1
        wanted = slice(cols.start - left, cols.start - left + step * drawn.shape[1], step)
        for top in range(0, len(drawn), BAND_ROWS):
            band = slice(top, min(top + BAND_ROWS, len(drawn)))
            share = overlaps.share(rows.start + step * band.start, rows.start + step * band.stop)[::step, wanted]
            lifted = drawn[band].astype(np.float32) - mean[band]
            lifted /= kept_deviation(share, self.agreement)[..., None]
            lifted += mean[band]
            drawn[band] = np.rint(np.clip(lifted, 0, WHITE, out=lifted))

    def _agreement(self) -> float:
        """Correlation of what a draw changes in neighbouring tiles, where both count; 1 for latents that tiles cut."""
        restorer, traits = self.restorer, self.restorer.traits
        grid = restorer.grid(self.burst.reference)  # all of it, so that a window shows the same samples
        pairs = _pairs(grid)
        if not pairs or all(latent.stride is not None for latent in traits.latents):
            return 1.0
        generator = torch.Generator().manual_seed(PROBE_SEED)
        weights, u = self._weights(), traits.upscale
        products, first_squares, second_squares = 0.0, 0.0, 0.0
        for rows, cols in pairs:
            first, second = self._changes(replace(grid, rows=rows, cols=cols), generator)
            down, right = u * (rows[-1] - rows[0]), u * (cols[-1] - cols[0])
            end, side = (len(weights) - down, len(weights) - right), (slice(down, None), slice(right, None))
            seen = weights[side] * weights[: end[0], : end[1]]
            one, other = first[:, side[0], side[1]], second[:, : end[0], : end[1]]
            products += float((seen * one * other).sum())
            first_squares += float((seen * one * one).sum())
            second_squares += float((seen * other * other).sum())
        both = (first_squares * second_squares) ** 0.5
        return min(max(products / both, 0.0), 1.0) if both > 0 else 1.0

    def _changes(self, grid: TileGrid, generator: torch.Generator) -> list[FloatArray]:
        """What one draw changes in each of two tiles, `[C', ut, ut]`, not clipped."""
        restorer, noise = self.restorer, self._noise(generator)
        # The base picture is in both and would only take time.
        traits = replace(restorer.traits, base="none")
        outputs = []
        for drawn in (None, noise):
            source = TileSource(self.burst, self.ratio, grid, traits, 1.0, drawn, restorer.device)
            runner = BatchRunner(
                restorer.model, restorer.device, restorer.dtype, 1, self.between, restorer.options.levels
            )
            outputs.append([image.copy() for image in runner.run(source.tiles(), 1.0)])
        return [moved - still for still, moved in zip(*outputs, strict=True)]

    def _weights(self) -> FloatArray:
        u, traits = self.restorer.traits.upscale, self.restorer.traits
        return tile_weights(u * traits.tile, "feather", self.restorer.options.power, u * traits.halo)


def _pairs(grid: TileGrid) -> list[Pair]:
    """A few pairs of neighbouring tiles that overlap, spread over the grid."""
    beside = [((row,), pair) for row in grid.rows for pair in zip(grid.cols, grid.cols[1:], strict=False)]
    below = [(pair, (col,)) for col in grid.cols for pair in zip(grid.rows, grid.rows[1:], strict=False)]
    found: list[Pair] = []
    for pairs in (beside, below):
        overlapping = [pair for pair in pairs if all(axis[-1] - axis[0] < grid.tile for axis in pair)]
        count = min(PROBES // 2, len(overlapping))
        found += [overlapping[(2 * n + 1) * len(overlapping) // (2 * count)] for n in range(count)]
    return found
