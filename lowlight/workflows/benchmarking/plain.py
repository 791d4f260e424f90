"""What one writes first, to compare with: all tiles in a stack, 32-bit floats in plain layout, libpng at level 6."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from lowlight.core.atomic import replacing
from lowlight.core.restoration import Batch, RestorationModel
from lowlight.objectives import Objective
from lowlight.ops.tiling import GridRule, TileGrid
from lowlight.raw.develop import develop
from lowlight.raw.read import read_raw
from lowlight.workflows.benchmarking.stages import StageClock

PNG_LEVEL = 6


def plain_photo(model: nn.Module, rule: GridRule, clock: StageClock) -> Callable[[Path, Path, float], None]:
    """Make `photo(frame, out, ratio)`, which enhances an RGGB frame tile by tile and merges in 64 bits.

    The network's low-pass base is left out, which favours this side.
    """
    import imagecodecs

    network = cast(RestorationModel, model)
    traits = network.traits
    tile, upscale = traits.tile, traits.upscale

    def photo(frame: Path, out: Path, ratio: float) -> None:
        with clock.stage("read"):
            raw = read_raw(frame)
        with clock.stage("pack"):
            mosaic = np.maximum(raw.mosaic.astype(np.float32) - raw.black[0], 0) / (raw.white[0] - raw.black[0])
            packed = np.stack((mosaic[0::2, 0::2], mosaic[0::2, 1::2], mosaic[1::2, 1::2], mosaic[1::2, 0::2]))
            if traits.input_colour == "wb":
                packed *= np.array(raw.wb_gains, dtype=np.float32)[:, None, None]
            packed = np.minimum(packed * ratio, 1).astype(np.float32)
            short = [max(tile - size, 0) for size in packed.shape[1:]]
            packed = np.pad(packed, ((0, 0), (0, short[0]), (0, short[1])), mode="edge")
            grid = TileGrid.cover(packed.shape[1], packed.shape[2], tile, rule)
            corners = [(row, col) for row in grid.rows for col in grid.cols]
            tiles = torch.stack([torch.from_numpy(packed[:, r : r + tile, c : c + tile]) for r, c in corners])
        with clock.stage("network"), torch.no_grad():
            outputs = torch.stack([network.restore(one[None, None]).image[0] for one in tiles]).clamp(0, 1).numpy()
        with clock.stage("merge"):
            side = tile * upscale
            offset = np.arange(side) - (side - 1) / 2
            weight = 1 / (offset[:, None] ** 2 + offset[None] ** 2)
            total = np.zeros((outputs.shape[1], packed.shape[1] * upscale, packed.shape[2] * upscale))
            norm = np.zeros(total.shape[1:])
            for (row, col), one in zip(corners, outputs, strict=True):
                where = (slice(row * upscale, row * upscale + side), slice(col * upscale, col * upscale + side))
                total[:, where[0], where[1]] += weight * one.astype(np.float64)
                norm[where] += weight
            picture = ((total / norm).transpose(1, 2, 0) * 65535 + 0.5).astype(np.uint16)
        if traits.output_colour == "camera":
            with clock.stage("develop"):
                picture = develop(picture, raw.camera_to_srgb)
        with clock.stage("encode"), replacing(out) as temporary:
            temporary.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), level=PNG_LEVEL))

    return photo


def plain_steps(model: nn.Module, objective: Objective, batch: Batch) -> Callable[[int], None]:
    """Make `step(number)`, which trains in 32-bit floats with Adam as it comes."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    network = cast(RestorationModel, model)

    def step(number: int) -> None:
        model.train()
        optimiser.zero_grad()
        loss = objective(network, batch, 0.5, torch.Generator().manual_seed(number))
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step
