"""The restorer of devices with memory of their own: one transfer up, one down, and nothing waits between.

The mosaic goes up as 16-bit numbers. Packing, amplifying, the network, merging and developing are done there, and
16-bit pixels come down. Whoever calls goes on to the next photo while the device works on this one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lowlight.burst import Burst
from lowlight.core.photo import RawFrame
from lowlight.core.restoration import Noise
from lowlight.detail import detailed, grown
from lowlight.ops.blending import merge_tensors, tile_weights
from lowlight.raw.develop import develop_tensor
from lowlight.resident import ResidentScene, seen_as, turn_back, upload
from lowlight.restorer import Restored, Restorer, RestorerOptions, window_of
from lowlight.tile_batches import BatchRunner, require_finite
from lowlight.tile_source import TileSource
from lowlight.views import VIEWS, Window

BATCHES = (126, 63, 54, 27, 18, 9, 6, 3, 2, 1)  # that divide the published tile counts, or are one
SHARE_OF_FREE = 0.5  # of the device's free memory, for the tiles of a batch; pictures need the rest
BAND_ROWS = 1024  # rows developed at a time: large steps, and yet no second picture in 32-bit floats


class _Down(NamedTuple):
    """Tensors on their way to the CPU; `done` is the event of their arrival."""

    tensors: list[Tensor]
    done: torch.cuda.Event | None

    def wait(self) -> list[Tensor]:
        if self.done is not None:
            self.done.synchronize()
        return self.tensors


class DeviceRestorer(Restorer):
    """A restorer whose photos stay on the device. Runs on the CPU too, where it shows what a device would do.

    `device_seconds` has for each finished photo how long the device was at it, where the device has a clock.
    """

    def __init__(
        self, model: torch.nn.Module, options: RestorerOptions | None = None, device: str | torch.device = "auto"
    ) -> None:
        super().__init__(model, options, device)
        self._up, self._down = self._stream(), self._stream()
        self.device_seconds: list[float] = []
        u = self.traits.upscale
        weights = tile_weights(u * self.traits.tile, self.options.merge, self.options.power, u * self.traits.halo)
        self._weights = torch.from_numpy(weights).to(self.device)

    def upload(self, scene: Burst) -> Burst:
        """Send the mosaic of a scene of one frame ahead; frames of others are averaged before they are sent."""
        scene = self.seen(scene)
        try:
            return upload(scene, self.device, self._up)
        except torch.OutOfMemoryError:
            return scene

    def photo(
        self,
        scene: RawFrame | Burst,
        ratio: float,
        *,
        window: Window | None = None,
        keep_linear: bool = False,
        noise: Noise | None = None,
        between: Callable[[], None] | None = None,
    ) -> Restored:
        """As `Restorer.photo`; the two differ by rounding alone."""
        return self.start(scene, ratio, window=window, keep_linear=keep_linear, noise=noise, between=between)()

    def start(self, scene: RawFrame | Burst, ratio: float, **how: Any) -> Callable[[], Restored]:
        """Begin `photo` and return while the device works; what is given waits, and then raises what `photo` raises.

        Where the device's memory does not hold the picture, it is put together on the CPU as `Restorer.photo` does it.
        """
        burst = scene if isinstance(scene, Burst) else Burst.single(scene)
        try:
            return self._start(self.upload(burst), ratio, **how)
        except torch.OutOfMemoryError:
            pass  # by the end of this block the error, which holds on to memory, is gone
        torch.cuda.empty_cache()
        restored = super().photo(Burst(burst.frames, burst.notes), ratio, **how)
        return lambda: restored

    @torch.inference_mode()
    def _start(
        self,
        burst: Burst,
        ratio: float,
        window: Window | None = None,
        keep_linear: bool = False,
        noise: Noise | None = None,
        between: Callable[[], None] | None = None,
    ) -> Callable[[], Restored]:
        frame = burst.reference
        if isinstance(burst, ResidentScene) and burst.ready is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(burst.ready)
            assert burst.mosaic is not None
            burst.mosaic.record_stream(now)
        began = self._mark()
        half = self.options.size == "half" and self.traits.upscale == 2
        window = window_of(frame, window, half)
        detail = self.brings_detail(frame) and noise is None
        if detail:
            window, inside = grown(window, frame.size)
        values, first = self._encoded(burst, ratio, window, noise, between)
        encoded = _rounded(values)
        runners = [first]
        for number, view in enumerate(VIEWS[self.ensemble if noise is None else 1][1:], 2):
            seen = view.window(window, frame.size)
            values, runner = self._encoded(seen_as(burst, view), ratio, seen, None, between, further=True)
            values = turn_back(values, view).mul(1 / number).add_(encoded, alpha=1 - 1 / number)
            encoded = _rounded(values)
            runners.append(runner)
        if detail:
            encoded = detailed(encoded, burst, ratio, *self.tiles(burst, window)[1:])[inside]
        pictures = [self._developed(encoded, frame, half), *([encoded] if keep_linear else [])]
        totals = torch.stack([runner.total for runner in runners]).sum()
        ended = self._mark()
        down = self._send_down([*(picture.to(torch.int16).contiguous() for picture in pictures), totals])

        def finish() -> Restored:
            *arrived, total = down.wait()
            if began and ended:
                self.device_seconds.append(began.elapsed_time(ended) / 1000)
            require_finite(total, self.dtype)
            pixels, *rest = (tensor.numpy().view(np.uint16) for tensor in arrived)
            linear = self._linear(frame, rest[0], half) if rest else None
            return Restored(pixels, linear, min(runner.batch for runner in runners))

        return finish

    def _good_batch(self) -> int:
        if self.device.type != "cuda":
            return super()._good_batch()
        return batch_that_fits(torch.cuda.mem_get_info(self.device)[0], self._bytes_per_tile())

    @torch.inference_mode()
    def _bytes_per_tile(self) -> int:
        """What one tile takes of a CUDA device's memory beside the network, by trying."""
        size = (1, 1, self.traits.in_channels, self.traits.tile, self.traits.tile)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.model.restore(torch.zeros(size, device=self.device, dtype=self.dtype))
        return torch.cuda.max_memory_allocated(self.device) - before

    def _stream(self) -> torch.cuda.Stream | None:
        return torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def _mark(self) -> torch.cuda.Event | None:
        """Note on the device's clock when it comes here."""
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _encoded(
        self,
        burst: Burst,
        ratio: float,
        window: Window,
        noise: Noise | None,
        between: Callable[[], None] | None,
        *,
        further: bool = False,
    ) -> tuple[Tensor, BatchRunner]:
        """The merged output of a window in the model's colours, float32 `[h, w, C]` of 0 to 65535, and what ran it."""
        traits, u = self.traits, self.traits.upscale
        grid, rows, cols = self.tiles(burst, window, further=further)
        top, left = u * grid.rows[0], u * grid.cols[0]
        source = TileSource(burst, ratio, grid, traits, self.options.strength, noise, self.device)
        runner = BatchRunner(self.model, self.device, self.dtype, self.batch, between, self.options.levels, stay=True)
        merged = merge_tensors(
            runner.stacks(source.stacks(self.batch, self.dtype), self.options.strength),
            tuple(u * row - top for row in grid.rows),
            tuple(u * col - left for col in grid.cols),
            (u * (grid.rows[-1] + traits.tile) - top, u * (grid.cols[-1] + traits.tile) - left),
            self._weights,
        )
        cut = merged[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        return cut.mul_(65535).permute(1, 2, 0), runner

    def _developed(self, encoded: Tensor, frame: RawFrame, half: bool) -> Tensor:
        """Finished pixels `[H, W, C]`, or their 2x2 means, band by band."""
        matrix = frame.camera_to_srgb if self.traits.output_colour == "camera" else None
        bands = []
        for band in torch.split(encoded, BAND_ROWS):
            pixels = develop_tensor(band, matrix)
            bands.append((_mean_of_blocks(pixels) if half else pixels).to(torch.int16))
        return torch.cat(bands)

    def _send_down(self, tensors: list[Tensor]) -> _Down:
        """Start the way to the CPU, beside what the device does next."""
        if self._down is None:
            return _Down([tensor.cpu() for tensor in tensors], None)
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            arriving = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors]
            for there, here in zip(arriving, tensors, strict=True):
                there.copy_(here, non_blocking=True)
                here.record_stream(self._down)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._down)
        return _Down(arriving, done)


def open_restorer(model: torch.nn.Module, options: RestorerOptions, device: torch.device) -> Restorer:
    """The restorer that suits a device."""
    return (DeviceRestorer if device.type == "cuda" else Restorer)(model, options, device)


def batch_that_fits(free: int, per_tile: int) -> int:
    """The number of tiles at a time for so many free bytes and bytes of one tile; at least 1."""
    return next((batch for batch in BATCHES if batch * per_tile <= SHARE_OF_FREE * free), 1)


def _rounded(values: Tensor) -> Tensor:
    """Values of 0 to 65535 as int32, and lost."""
    # What is not finite is told later; until then it must not lead past the end of a table.
    return values.add_(0.5).to(torch.int32).clamp_(0, 65535)


def _mean_of_blocks(pixels: Tensor) -> Tensor:
    """2x2 means of int32 `[H, W, C]`, rounded, `[H//2, W//2, C]`."""
    height, width = (length // 2 * 2 for length in pixels.shape[:2])
    total = torch.full_like(pixels[0:height:2, 0:width:2], 2)
    for row in (0, 1):
        for col in (0, 1):
            total += pixels[row:height:2, col:width:2]
    return total >> 2
