"""One dark frame in, one bright picture out: the only inference path, shared by enhance, eval and validation.

pack -> amplify -> tiles -> network -> merge -> crop -> develop. Everything is done in bands of rows, so memory does
not grow with the number of tiles.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.compute import choose_device, choose_precision
from lowlight.core.errors import OutputError, UsageError
from lowlight.core.photo import LinearImage, RawFrame
from lowlight.core.restoration import ModelTraits, RestorationModel
from lowlight.ops.blending import BandBlender, FloatArray, Merge, tile_weights
from lowlight.ops.color import apply_matrix, encode
from lowlight.ops.demosaic import demosaic
from lowlight.ops.exposure import (
    BASE_BLOCK_PX,
    amplify,
    block_means,
    develop_means,
    packed_to_rgb,
    upsample_window,
)
from lowlight.ops.resize import mean_of_blocks
from lowlight.ops.tiling import GridRule, TileGrid, dense
from lowlight.raw.bayer import origin_padding, pack, packed_size
from lowlight.raw.develop import develop, to_linear


BAND_ROWS = 256  # rows developed at a time
Pixels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class RestorerOptions:
    """How a frame is cut, computed and put together."""

    grid: GridRule = field(default_factory=dense)
    merge: Merge = "idw"
    power: float = 2.0  # of the inverse distance
    strength: float = 1.0  # 1: the network's picture, 0: the developed input
    precision: str = "auto"
    batch: int = 3  # tiles at a time; a divisor of both published tile counts
    size: str = "native"  # native, full, half


@dataclass(frozen=True, eq=False)
class Restored:
    """A finished picture in sRGB primaries and LibRaw's curve, uint16 `[H, W, C]`, not turned yet.

    `batch` is the number of tiles that fitted into memory at a time.
    """

    pixels: Pixels
    linear: LinearImage | None
    batch: int


class Restorer:
    """A network with the way it is used on whole frames."""

    def __init__(
        self,
        model: torch.nn.Module,
        options: RestorerOptions | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.options = options or RestorerOptions()
        self.device = device if isinstance(device, torch.device) else choose_device(device)
        self.dtype = choose_precision(self.options.precision, self.device)
        assert isinstance(model, RestorationModel)
        self.traits: ModelTraits = model.traits
        self.model = model.to(self.device, self.dtype, memory_format=torch.channels_last).eval()
        if self.options.size == "full" and self.traits.upscale == 1:
            raise UsageError("this model gives pictures of half the sensor's size; use --size half, or other weights")

    def photo(self, frame: RawFrame, ratio: float, *, keep_linear: bool = False) -> Restored:
        """Enhance one frame by `ratio`; the picture has the size of the visible mosaic (or half of it).

        With `keep_linear` the linear picture is given too. Raises `OutputError` where the result is not finite.
        """
        encoded, batch = self._network_picture(frame, ratio)
        half = self.options.size == "half" and self.traits.upscale == 2
        linear = self._linear(frame, encoded, half) if keep_linear else None
        matrix = frame.camera_to_srgb if self.traits.output_colour == "camera" else None
        height, width = encoded.shape[:2]
        if half:
            pixels = np.empty((height // 2, width // 2, encoded.shape[2]), dtype=np.uint16)
        else:
            pixels = encoded  # developed in place, band by band
        for top in range(0, height, BAND_ROWS):
            band = develop(encoded[top : top + BAND_ROWS], matrix)
            if half:
                band = mean_of_blocks(band)
                pixels[top // 2 : top // 2 + len(band)] = band
            else:
                pixels[top : top + BAND_ROWS] = band
        return Restored(pixels, linear, batch)

    def _network_picture(self, frame: RawFrame, ratio: float) -> tuple[Pixels, int]:
        """The merged output in the model's colours, cropped back to the mosaic, and the batch that fitted."""
        traits, u = self.traits, self.traits.upscale
        height, width = packed_size(frame.size, frame.pattern)
        grid = TileGrid.cover(height, width, traits.tile, self.options.grid)
        source = TileSource(frame, ratio, grid, traits, self.options.strength)
        weights = tile_weights(u * traits.tile, self.options.merge, self.options.power)
        blender = BandBlender(
            tuple(u * row for row in grid.rows),
            tuple(u * col for col in grid.cols),
            u * grid.padded[1],
            traits.out_channels,
            weights,
        )
        top, left = origin_padding(frame.pattern) if u == 2 else (0, 0)
        rows, cols = frame.size if u == 2 else ((frame.size[0] + 1) // 2, (frame.size[1] + 1) // 2)
        picture = np.empty((rows, cols, traits.out_channels), dtype=np.uint16)
        runner = _BatchRunner(self.model, self.device, self.dtype, self.options.batch)
        for first, band in blender.merge(runner.run(source)):
            if not np.isfinite(band).all():
                raise OutputError("the network gave values that are not finite; try --precision fp32")
            start, stop = max(first - top, 0), min(first - top + band.shape[1], rows)
            if stop > start:
                cut = band[:, start - first + top : stop - first + top, left : left + cols]
                cut *= 65535
                cut += 0.5
                picture[start:stop] = cut.transpose(1, 2, 0)
        return picture, runner.batch

    def _linear(self, frame: RawFrame, encoded: Pixels, half: bool) -> LinearImage:
        pixels = np.empty_like(encoded)
        for top in range(0, len(encoded), BAND_ROWS):
            band = to_linear(encoded[top : top + BAND_ROWS])
            pixels[top : top + BAND_ROWS] = band * np.float32(65535) + np.float32(0.5)
        if half:
            pixels = mean_of_blocks(pixels)
        if self.traits.output_colour == "srgb":
            return LinearImage(pixels, np.eye(3, dtype=np.float32), (1.0, 1.0, 1.0))
        r, g, b, _ = frame.wb_gains
        return LinearImage(pixels, frame.camera_to_srgb, (r, g, b))


class TileSource:
    """Gives the network's input for any tile of one frame, reading only the rows a row of tiles needs."""

    def __init__(
        self, frame: RawFrame, ratio: float, grid: TileGrid, traits: ModelTraits, strength: float
    ) -> None:
        self.frame, self.ratio, self.grid, self.traits = frame, ratio, grid, traits
        self.strength = strength
        self.gains = torch.tensor(frame.wb_gains)
        matrix = frame.camera_to_srgb
        self.matrix = None if matrix is None else torch.from_numpy(np.ascontiguousarray(matrix)).float()
        self.coarse = self._coarse() if traits.base == "lowpass" else None

    def tiles(self) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
        """In row-major order: input `[4, t, t]`, base `[3, ut, ut]` or None, developed input where it is mixed in."""
        tile, width = self.grid.tile, self.grid.width
        for row in self.grid.rows:
            packed = pack(self.frame, row, min(row + tile, self.grid.height))
            if packed.shape[1] < tile or width < tile:
                packed = _reflect_to(packed, max(packed.shape[1], tile), max(width, tile))
            band = amplify(packed, self.ratio, self.gains, self.traits.input_colour)
            mixed = amplify(packed, self.ratio, self.gains, "wb") if self.strength < 1 else None
            for col in self.grid.cols:
                cut = band[:, :, col : col + tile]
                developed = None if mixed is None else self._developed(mixed[:, :, col : col + tile])
                yield cut, self._base(row, col), developed

    def _base(self, row: int, col: int) -> Tensor | None:
        if self.coarse is None:
            return None
        return upsample_window(
            self.coarse, row, col, self.grid.tile, self.traits.upscale, BASE_BLOCK_PX
        )

    def _coarse(self) -> Tensor:
        """The low-pass base of the whole frame, so that neighbouring tiles agree."""
        bands = []
        rows = BASE_BLOCK_PX * 16
        for top in range(0, self.grid.height, rows):
            packed = pack(self.frame, top, min(top + rows, self.grid.height))
            balanced = amplify(packed, self.ratio, self.gains, "wb")
            bands.append(block_means(packed_to_rgb(balanced), BASE_BLOCK_PX))
        return develop_means(torch.cat(bands, dim=1), self.traits.output_colour, self.matrix)

    def _developed(self, balanced: Tensor) -> Tensor:
        """The plain picture of a balanced tile in the output's colours."""
        rgb = demosaic(balanced) if self.traits.upscale == 2 else packed_to_rgb(balanced)
        if self.traits.output_colour == "srgb" and self.matrix is not None:
            rgb = apply_matrix(rgb, self.matrix).clamp_(0, 1)
        return encode(rgb)


class _BatchRunner:
    """Runs tiles through the network in batches; halves the batch where memory runs out."""

    def __init__(
        self, model: torch.nn.Module, device: torch.device, dtype: torch.dtype, batch: int
    ) -> None:
        self.model, self.device, self.dtype, self.batch = model, device, dtype, max(batch, 1)

    def run(self, source: TileSource) -> Iterator[FloatArray]:
        """Output tiles `[C', ut, ut]` as float32 arrays, in order."""
        waiting: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        for item in source.tiles():
            waiting.append(item)
            if len(waiting) == self.batch:
                yield from self._forward(waiting, source.strength)
                waiting = []
        if waiting:
            yield from self._forward(waiting, source.strength)

    def _forward(
        self, items: list[tuple[Tensor, Tensor | None, Tensor | None]], strength: float
    ) -> Iterator[FloatArray]:
        while items:
            now = items[: self.batch]
            try:
                out = self._restore(now)
            except RuntimeError as error:
                if not _out_of_memory(error) or self.batch == 1:
                    raise
                self.batch = max(self.batch // 2, 1)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            for image, (_, _, developed) in zip(out, now, strict=True):
                if developed is not None:
                    image = torch.lerp(developed, image.clamp(0, 1), strength)
                yield image.numpy()
            items = items[len(now) :]

    @torch.inference_mode()
    def _restore(self, items: list[tuple[Tensor, Tensor | None, Tensor | None]]) -> Tensor:
        frames = torch.stack([frame for frame, _, _ in items])
        frames = frames.to(self.device, self.dtype, memory_format=torch.channels_last)
        # The base keeps full precision: what is added to it is small.
        image = self.model.restore(frames[:, None]).image.float()  # type: ignore[operator]
        if items[0][1] is not None:
            image = image + torch.stack([b for _, b, _ in items if b is not None]).to(self.device)
        return image.cpu().contiguous()


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text


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

