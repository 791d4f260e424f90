"""Dark frames of one scene in, one bright picture out: the only inference path, shared by enhance, eval, validation.

pack -> average -> amplify -> tiles -> network -> merge -> crop -> develop. Everything is done in bands of rows, so
memory does not grow with the number of tiles, and with the number of frames only by their mosaics.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lowlight.burst import Burst
from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.errors import UsageError
from lowlight.core.photo import RGGB, LinearImage, RawFrame
from lowlight.core.restoration import HierarchicalModel, ModelTraits, Noise, RestorationModel
from lowlight.core.threads import at_once, one_thread, spans
from lowlight.detail import add_detail, grown
from lowlight.models.onednn import pack_weights
from lowlight.ops.blending import BandBlender, Merge, tile_weights
from lowlight.ops.resize import mean_of_blocks
from lowlight.ops.tiling import GridRule, TileGrid, dense, sparse
from lowlight.raw.bayer import origin_padding, packed_size
from lowlight.raw.develop import develop, to_linear
from lowlight.tile_batches import BatchRunner, compile_network, default_batch
from lowlight.tile_source import RAW_CHANNELS, SRGB_CHANNELS, TileSource, noise_fields
from lowlight.views import VIEWS, Window, add_to_mean

BAND_ROWS = 64  # rows developed at a time, which stay in the processor's cache
SIZES = ("native", "full", "half")
Pixels = npt.NDArray[np.uint16]


def window_of(frame: RawFrame, window: Window | None, half: bool) -> Window:
    """The window to compute, without one the whole mosaic; what is halved begins as the whole mosaic's blocks do."""
    x, y, width, height = window or (0, 0, frame.size[1], frame.size[0])
    return (x - x % 2, y - y % 2, width, height) if half else (x, y, width, height)


@dataclass(frozen=True)
class RestorerOptions:
    """How a frame is cut, computed and put together. Impossible values raise `UsageError`."""

    grid: GridRule = field(default_factory=dense)
    merge: Merge = "idw"
    power: float = 2.0  # of the inverse distance
    strength: float = 1.0  # 1: the network's picture, 0: the developed input
    ensemble: int | None = None  # views of the scene to average, 1, 2, 4 or 8; None: what the weights recommend
    detail: bool | None = None  # bring back what the network smoothed away; None: what the weights recommend
    levels: int = 1  # finest level of a pyramid that is run; from there on the picture is enlarged
    precision: str = "auto"
    batch: int | None = None  # tiles at a time; None: what suits the device
    size: str = "native"  # full, half, or native: what the network gives
    compile: bool = False  # the network, for long runs on a GPU

    def __post_init__(self) -> None:
        """Refuse values that no network can be used with."""
        if self.size not in SIZES:
            raise UsageError(f"there is no size {self.size!r}; there are full and half, or leave it out")
        if not 0 <= self.strength <= 1:
            raise UsageError(f"the strength is 0 (plain amplification) to 1 (all network), not {self.strength:g}")
        if self.ensemble not in (None, *VIEWS):
            raise UsageError(f"an ensemble of {self.ensemble} views cannot be; it takes {', '.join(map(str, VIEWS))}")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"a batch of {self.batch} tiles cannot be; it takes at least 1")


@dataclass(frozen=True, eq=False)
class Restored:
    """A finished picture in sRGB primaries and LibRaw's curve, uint16 `[H, W, C]`, not turned yet.

    `batch` is the number of tiles that fitted into memory at a time.
    """

    pixels: Pixels
    linear: LinearImage | None
    batch: int


class Restorer:
    """A network with the way it is used on whole frames; photos may be given to it one after another.

    The network itself is moved and converted, not a copy of it: who goes on training it hands over a twin.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        options: RestorerOptions | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.options = options or RestorerOptions()
        self.device = device if isinstance(device, torch.device) else choose_device(device)
        self.dtype = choose_precision(self.options.precision, self.device)
        assert isinstance(model, RestorationModel | HierarchicalModel)
        self.traits: ModelTraits = model.traits
        if self.traits.kind != "raw":
            raise UsageError(
                "these weights are for finished pictures of one size, not for RAW photos; use other weights"
            )
        if self.options.size == "full" and self.traits.upscale == 1:
            raise UsageError("this model gives pictures of half the sensor's size; use --size half, or other weights")
        if self.traits.in_channels not in (SRGB_CHANNELS, RAW_CHANNELS):
            raise UsageError(f"this model reads {self.traits.in_channels} planes; a Bayer RAW has 4, use other weights")
        if not 1 <= self.options.levels <= self.traits.levels:
            raise UsageError(
                f"level {self.options.levels} was asked for, and these weights have "
                + (f"levels 1 to {self.traits.levels}" if self.traits.levels > 1 else "no levels; leave out --levels")
            )
        self.ensemble = self.options.ensemble or self.traits.ensemble
        if self.ensemble > 1 and self.traits.upscale == 1:
            raise UsageError(
                "these weights give pictures of half the sensor's size, and turned by an odd number of pixels those do "
                "not fit one another; leave out --ensemble, or take weights of full size"
            )
        self.detail = self.traits.detail if self.options.detail is None else self.options.detail
        if self.detail and not self.traits.can_have_detail:
            raise UsageError(
                "detail can be brought back to camera colour at full sensor size, which these weights do not give; "
                "leave out --detail, or take other weights"
            )
        self.rule = self.options.grid.fitted(self.traits.tile)
        self._last: BandBlender | None = None
        network: torch.nn.Module = model
        self.model = network.to(self.device, self.dtype, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.batch = self.options.batch or self._good_batch()
        if self.options.compile:
            compile_network(self.model, self.traits, self.device, self.dtype, self.batch)
        else:
            pack_weights(self.model, self.batch)

    def _good_batch(self) -> int:
        """How many tiles to compute at a time; the network is on its device and not compiled yet."""
        return default_batch(self.traits, self.device)

    def grid(self, frame: RawFrame, *, further: bool = False) -> TileGrid:
        """Where the tiles of a frame lie, or those of a `further` view of an ensemble."""
        size = packed_size(frame.size, frame.pattern if self.traits.upscale == 2 else RGGB)
        rule = sparse(self.traits.tile) if further else self.rule
        return TileGrid.cover(*size, self.traits.tile, rule, self.traits.latent_stride)

    def noise(self, frame: RawFrame, generator: torch.Generator, temperature: float = 1.0) -> Noise:
        """Draw what `photo` needs for one hypothesis: a field over the whole frame for each latent.

        A latent without extent has one draw `[Z]`, a spatial one `[Z, h', w']`; normal numbers times `temperature`.
        Raises `UsageError` for networks without latents.
        """
        if not self.traits.latents:
            raise UsageError("this network has no latents, so there is nothing to draw samples of; use other weights")
        return noise_fields(self.traits, self.grid(frame).padded, generator, temperature)

    def seen(self, scene: RawFrame | Burst) -> Burst:
        """A scene as this network packs it: at packed size a pixel is a 2x2 block of the mosaic, at full size not."""
        burst = scene if isinstance(scene, Burst) else Burst.single(scene)
        return burst if self.traits.upscale == 2 else burst.in_blocks()

    def upload(self, scene: Burst) -> Burst:
        """Bring a scene to where it is computed, which may be done ahead and by another thread; here it stays."""
        return scene

    def start(self, scene: RawFrame | Burst, ratio: float, **how: Any) -> Callable[[], Restored]:
        """Begin `photo`; what is given waits for its end, and may do so in another thread. Here all is done at once."""
        restored = self.photo(scene, ratio, **how)
        return lambda: restored

    def brings_detail(self, frame: RawFrame) -> bool:
        """Whether detail is brought back; of mistaken colours, where it would be a grid, only if it was asked for."""
        return self.detail and (self.options.detail is True or not frame.wrong_pattern)

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
        """Enhance a frame, or aligned frames of one scene; the picture has the size of a visible mosaic, or half.

        `ratio` amplifies the reference; the other frames are brought to its level first. A network of sets gets the
        frames as they are, any other their mean. With a `window` inside the mosaic only the tiles it touches are
        computed, and the picture is that window of what the whole frame would give. With `keep_linear` the linear
        picture is given too. `noise` (see there) moves the latents; without it they are the prior's means. `between`
        is called before every batch of tiles; what it raises ends the work. With an `ensemble` further views of the
        scene are averaged in, except for hypotheses; theirs is the sparse grid, since averaging hides its seams. Then
        `detail` is brought back where that is asked for or recommended, see `lowlight.detail`. Raises
        `OutputError` where the result is not finite, `MemoryError` where not even one tile fits.
        """
        burst = self.seen(scene)
        frame = burst.reference
        half = self.options.size == "half" and self.traits.upscale == 2
        window = window_of(frame, window, half)
        detail = self.brings_detail(frame) and noise is None
        if detail:
            window, inside = grown(window, frame.size)
        _, rows, cols = self.tiles(burst, window)
        encoded = np.empty((len(rows), len(cols), self.traits.out_channels), dtype=np.uint16)
        batch = self._add_picture(encoded, 1, burst, ratio, window, noise, between)
        if noise is None:
            batch = self._average_views(encoded, batch, burst, ratio, window, between)
        if detail:
            add_detail(encoded, burst, ratio, rows, cols)
            encoded = np.ascontiguousarray(encoded[inside])
        linear = self._linear(frame, encoded, half) if keep_linear else None
        matrix = frame.camera_to_srgb if self.traits.output_colour == "camera" else None
        height, width = encoded.shape[:2]
        # Without halving it is developed in place, band by band.
        pixels = np.empty((height // 2, width // 2, encoded.shape[2]), dtype=np.uint16) if half else encoded

        def finish(rows: range) -> None:
            for top in range(rows.start, rows.stop, BAND_ROWS):
                band = develop(encoded[top : min(top + BAND_ROWS, rows.stop)], matrix)
                if half:
                    band = mean_of_blocks(band)
                first = top // 2 if half else top
                pixels[first : first + len(band)] = band

        at_once(finish, spans(height, BAND_ROWS))
        return Restored(pixels, linear, batch)

    def _average_views(
        self,
        encoded: Pixels,
        batch: int,
        burst: Burst,
        ratio: float,
        window: Window,
        between: Callable[[], None] | None,
    ) -> int:
        """Average the other views of the ensemble into the first, in place, and give the smallest batch that fitted."""
        for number, view in enumerate(VIEWS[self.ensemble][1:], 2):
            seen = view.window(window, burst.reference.size)
            fitted = self._add_picture(view.seen(encoded), number, view.scene(burst), ratio, seen, None, between)
            batch = min(batch, fitted)
        return batch

    def _add_picture(
        self,
        mean: Pixels,
        number: int,
        burst: Burst,
        ratio: float,
        window: Window,
        noise: Noise | None,
        between: Callable[[], None] | None,
    ) -> int:
        """Average the merged output of a window, in the model's colours, into a mean as the picture of this number.

        Gives the batch that fitted.
        """
        traits, u = self.traits, self.traits.upscale
        grid, rows, cols = self.tiles(burst, window, further=number > 1)
        left = u * grid.cols[0]
        blender = self._blender(
            tuple(u * row for row in grid.rows),
            tuple(u * col - left for col in grid.cols),
            u * (grid.cols[-1] + traits.tile) - left,
        )
        source = TileSource(burst, ratio, grid, traits, self.options.strength, noise)
        runner = BatchRunner(self.model, self.device, self.dtype, self.batch, between, self.options.levels)
        bands = blender.merge(runner.run(source.tiles(self.dtype), self.options.strength))
        with one_thread():  # but for the network: the steps beside it are small, and waking the others takes longer
            for first, band in bands:
                start, stop = max(first, rows.start), min(first + band.shape[1], rows.stop)
                if stop > start:
                    cut = band[:, start - first : stop - first, cols.start - left : cols.stop - left]
                    cut *= 65535
                    # Colour by colour: one step that also turns the axes takes twice as long.
                    for channel, values in enumerate(cut):
                        add_to_mean(mean[start - rows.start : stop - rows.start, :, channel], values, number)
        return runner.batch

    def tiles(self, burst: Burst, window: Window, *, further: bool = False) -> tuple[TileGrid, range, range]:
        """The tiles that touch a window, and the rows and columns of the network's picture that show it."""
        tile, u = self.traits.tile, self.traits.upscale
        rows, cols = _spans(window, origin_padding(burst.reference.pattern), burst.size, u)
        whole = self.grid(burst.reference, further=further)
        touching = replace(whole, rows=_touching(whole.rows, rows, tile, u), cols=_touching(whole.cols, cols, tile, u))
        return touching, rows, cols

    def _blender(self, rows: tuple[int, ...], cols: tuple[int, ...], width: int) -> BandBlender:
        """The last one again where it fits: fresh arrays for every photo would scatter the memory of a long run."""
        if self._last is None or (self._last.rows, self._last.cols, self._last.width) != (rows, cols, width):
            self._last = None  # one at a time
            u = self.traits.upscale
            weights = tile_weights(u * self.traits.tile, self.options.merge, self.options.power, u * self.traits.halo)
            self._last = BandBlender(rows, cols, width, self.traits.out_channels, weights)
        return self._last

    def _linear(self, frame: RawFrame, encoded: Pixels, half: bool) -> LinearImage:
        pixels = np.empty((*encoded.shape[:2], 3), dtype=np.uint16)  # three channels, of a gray picture too
        for top in range(0, len(encoded), BAND_ROWS):
            band = to_linear(encoded[top : top + BAND_ROWS])
            pixels[top : top + BAND_ROWS] = band * np.float32(65535) + np.float32(0.5)
        if half:
            pixels = mean_of_blocks(pixels)
        if self.traits.output_colour == "srgb":
            return LinearImage(pixels, np.eye(3, dtype=np.float32), (1.0, 1.0, 1.0))
        r, g, b, _ = frame.wb_gains
        return LinearImage(pixels, frame.camera_to_srgb, (r, g, b))


def _spans(window: Window, padding: tuple[int, int], packed: tuple[int, int], u: int) -> tuple[range, range]:
    """Rows and columns of the network's picture that show a window of the mosaic."""
    x, y, width, height = window
    spans = []
    for first, length, before, most in ((y, height, padding[0], packed[0]), (x, width, padding[1], packed[1])):
        start, count = (first + before, length) if u == 2 else ((first + before) // 2, (length + 1) // 2)
        spans.append(range(start, min(start + count, u * most)))
    return spans[0], spans[1]


def _touching(starts: tuple[int, ...], span: range, tile: int, u: int) -> tuple[int, ...]:
    return tuple(start for start in starts if u * start < span.stop and u * (start + tile) > span.start)
