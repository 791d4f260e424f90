"""Tiles of a frame on their own, unmerged, each beside its part of the truth (the thesis' "patches only")."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from lowlight.core.errors import DataError
from lowlight.data.packed_set import half_truth
from lowlight.data.pairs import Pair
from lowlight.ops.resize import mean_of_blocks
from lowlight.raw.bayer import origin_padding
from lowlight.raw.develop import develop
from lowlight.restorer import Restorer
from lowlight.tile_batches import BatchRunner
from lowlight.tile_source import TileSource
from lowlight.workflows.evaluating.scoring import Pixels


def tile_pictures(restorer: Restorer, pair: Pair) -> Iterator[tuple[Pixels, Pixels]]:
    """Every tile of the restorer's grid as a developed picture of packed size, with the truth that belongs to it.

    Both are uint16 `[h, w, C]`; what was padded around a frame is cut off. Tiles of a size too small to measure
    raise `DataError`.
    """
    traits, frame, truth = restorer.traits, pair.frame, half_truth(pair)
    grid = restorer.grid(frame)
    source = TileSource(restorer.seen(frame), pair.ratio, grid, traits, 1.0)
    runner = BatchRunner(restorer.model, restorer.device, restorer.dtype, restorer.batch, None)
    matrix = frame.camera_to_srgb if traits.output_colour == "camera" else None
    top, left = origin_padding(frame.pattern) if traits.upscale == 2 else (0, 0)
    for (row, col), tile in zip(product(grid.rows, grid.cols), runner.run(source.tiles(), 1.0), strict=True):
        encoded = np.asarray(np.clip(tile, 0, 1).transpose(1, 2, 0) * 65535 + 0.5).astype(np.uint16)
        picture = develop(encoded, matrix)
        if traits.upscale == 2:  # the mosaic's first row or column may lie one pixel inside the tile
            picture = mean_of_blocks(picture[top:, left:])
        cut = truth[row : row + picture.shape[0], col : col + picture.shape[1]]
        if min(cut.shape[:2]) < 1:
            raise DataError(f"a tile at {row}, {col} of {pair.name} lies outside its truth")
        yield picture[: cut.shape[0], : cut.shape[1]], cut
