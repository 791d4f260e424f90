"""Where the seconds of a picture go: into the network, and into merging its tiles."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowlight.core.compute import wait_for
from lowlight.core.photo import RawFrame
from lowlight.device_restorer import DeviceRestorer
from lowlight.ops.blending import BandBlender, FloatArray, merge_tensors, tile_weights
from lowlight.ops.tiling import TileGrid
from lowlight.restorer import Restorer


class NetworkClock:
    """Adds up the seconds that a network takes: wraps its `restore`, and waits for the device it ran on."""

    def __init__(self, network: nn.Module) -> None:
        self.seconds = 0.0
        network.restore = self._around(network.restore)  # type: ignore[arg-type, assignment]

    def take(self) -> float:
        """Give the seconds since the last call, and begin anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(frames: Tensor, *arguments: Any, **named: Any) -> Any:
            wait_for(frames.device)
            began = time.perf_counter()
            try:
                result = function(frames, *arguments, **named)
                wait_for(frames.device)
                return result
            finally:
                self.seconds += time.perf_counter() - began

        return timed


class MergeClock:
    """Times the merge of a frame's tiles alone, on tiles that are ready; once for each size of frame."""

    def __init__(self, restorer: Restorer) -> None:
        self._restorer = restorer
        self._seconds: dict[tuple[int, int], float] = {}

    def seconds(self, frame: RawFrame) -> float:
        """Give the seconds of merging one frame of this size."""
        grid = self._restorer.grid(frame)
        size = grid.height, grid.width
        if size not in self._seconds:
            self._seconds[size] = self._measure(grid)
        return self._seconds[size]

    def _measure(self, grid: TileGrid) -> float:
        traits, options = self._restorer.traits, self._restorer.options
        u = traits.upscale
        weights = tile_weights(u * traits.tile, options.merge, options.power, u * traits.halo)
        tile = np.random.default_rng(0).random((traits.out_channels, *weights.shape), dtype=np.float32)
        rows, cols = (tuple(u * start for start in starts) for starts in (grid.rows, grid.cols))
        height, width = (u * size for size in grid.padded)
        if isinstance(self._restorer, DeviceRestorer):
            device = self._restorer.device
            row, placed = (
                torch.from_numpy(tile).to(device).repeat(len(cols), 1, 1, 1),
                torch.from_numpy(weights).to(device),
            )
            wait_for(device)
            began = time.perf_counter()
            merge_tensors((row for _ in rows), rows, cols, (height, width), placed)
            wait_for(device)
            return time.perf_counter() - began

        def ready() -> Iterator[FloatArray]:
            for _ in range(grid.count):
                yield tile

        began = time.perf_counter()
        for _ in BandBlender(rows, cols, width, traits.out_channels, weights).merge(ready()):
            pass
        return time.perf_counter() - began
