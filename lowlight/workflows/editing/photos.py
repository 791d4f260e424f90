"""Editing enhanced photos with the RAW pyramid: its pictures of whole frames, and photos rendered from painted ones.

Frames are amplified packed RAW as the network reads them. The pyramid is run tile by tile and the tiles' pictures of
one level are merged; tiles start at multiples of the coarsest level's pixel, so that a picture of any level has
exactly the packed size divided by 2^(k-1).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.atomic import write_text
from lowlight.core.config import from_dict, parse_json, to_dict
from lowlight.core.errors import BrokenFileError, ConfigError, UsageError
from lowlight.core.restoration import ModelTraits, Noise, Restoration
from lowlight.ops.blending import BandBlender, FloatArray, tile_weights
from lowlight.ops.pyramid import reflect_pad
from lowlight.ops.tiling import GridRule, TileGrid, dense


class PyramidModel(Protocol):
    """The RAW pyramid's test-time path."""

    traits: ModelTraits

    def restore(
        self,
        frames: Tensor,
        base: Tensor | None = None,
        noise: Noise | None = None,
        levels: int = 1,
        painted: Tensor | None = None,
        painted_level: int | None = None,
    ) -> Restoration:
        """Run the levels down to `levels`, with the picture of one replaced where `painted` is given."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What is kept beside an exported coarse picture, so that it can be imported again."""

    photo: str  # file name of the RAW
    photo_sha256: str
    ratio: float
    weights: str  # name of the weights file
    weights_sha256: str
    level: int
    width: int  # of the coarse picture, in pixels
    height: int

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, json.dumps(to_dict(self), indent=2) + "\n")

    def is_at(self, path: Path) -> bool:
        """Whether a file says just this."""
        try:
            return self.read(path) == self
        except BrokenFileError:
            return False

    @classmethod
    def read(cls, path: Path) -> "Sidecar":
        """Read it; `BrokenFileError` where the file is missing or not one of these."""
        try:
            return from_dict(cls, parse_json(path.read_text(encoding="utf-8")), str(path))
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise BrokenFileError(
                f"{path}, which says what an exported picture belongs to, cannot be read ({error}); export it again"
            ) from error


def level_size(height: int, width: int, level: int, upscale: int = 1) -> tuple[int, int]:
    """Height and width of a whole frame's picture of a level, from the packed size; incomplete pixels count."""
    if level == 1:
        return upscale * height, upscale * width
    step = 1 << (level - 1)
    return -(-height // step), -(-width // step)


def render(
    model: PyramidModel,
    frame: Tensor,
    *,
    level: int = 1,
    painted: FloatArray | None = None,
    painted_level: int | None = None,
    noise: Noise | None = None,
    rule: GridRule | None = None,
    batch: int = 3,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> FloatArray:
    """The merged picture of `level`, `[C', h, w]` in [0, 1], of one amplified packed frame `[C, H, W]`.

    With `painted`, the merged picture of `painted_level` as a user left it, each tile's picture of that level is cut
    from it and the finer levels are rendered. `noise` `[1, Z]` a latent, coarsest first, is shared by all tiles. The
    frame and the noise are on the model's device and in its number format. With `wanted [h, w]` only the tiles that
    show one of these pixels are computed: there the picture is what it would be of all tiles, elsewhere it is not.
    """
    traits = model.traits
    if not 1 <= level <= len(traits.latents):
        raise UsageError(f"level is {level}; this model has levels 1 (finest) to {len(traits.latents)}")
    height, width = frame.shape[-2:]
    grid = TileGrid.cover(height, width, traits.tile, rule or dense(traits.tile), traits.latent_stride)
    padded = grid.padded
    frame = reflect_pad(frame, 0, padded[0] - height, 0, padded[1] - width)
    whole = None
    if painted is not None and painted_level is not None:
        whole = _padded_painting(painted, (height, width), padded, traits, painted_level)
    scale = _scale(traits, level)
    side = scale(traits.tile)
    starts = [(row, col) for row in grid.rows for col in grid.cols]
    tops_lefts = [(scale(row), scale(col)) for row, col in starts]
    needed = [wanted is None or bool(wanted[y : y + side, x : x + side].any()) for y, x in tops_lefts]

    def tiles() -> Iterator[FloatArray]:
        chosen = [start for start, need in zip(starts, needed, strict=True) if need]
        rendered = _rendered_tiles(model, frame, chosen, level, whole, painted_level, noise, min(batch, len(starts)))
        nothing = np.zeros((traits.out_channels, side, side), dtype=np.float32)
        for need in needed:
            yield next(rendered) if need else nothing

    blender = BandBlender(
        tuple(scale(row) for row in grid.rows),
        tuple(scale(col) for col in grid.cols),
        scale(padded[1]),
        traits.out_channels,
        tile_weights(side, halo_px=scale(traits.halo)),
    )
    picture = np.empty((traits.out_channels, scale(padded[0]), scale(padded[1])), dtype=np.float32)
    for first, band in blender.merge(tiles()):
        np.clip(band, 0, 1, out=picture[:, first : first + band.shape[1]])  # a mean of ones may round above
    rows, cols = level_size(height, width, level, traits.upscale)
    return picture[:, :rows, :cols]


def _rendered_tiles(
    model: PyramidModel,
    frame: Tensor,
    starts: list[tuple[int, int]],
    level: int,
    whole: Tensor | None,
    painted_level: int | None,
    noise: Noise | None,
    batch: int,
) -> Iterator[FloatArray]:
    """The pictures of a level of the tiles that have these starts, in this order, `batch` computed at a time."""
    tile = model.traits.tile
    for first in range(0, len(starts), batch):
        now = starts[first : first + batch]
        # Always so many at a time: fewer may pick another kernel, whose sums are rounded differently.
        filled = now + now[-1:] * (batch - len(now))
        frames = torch.stack([frame[:, row : row + tile, col : col + tile] for row, col in filled])
        cut = None
        if whole is not None and painted_level is not None:
            cut = torch.stack([_cut(whole, row, col, model.traits, painted_level) for row, col in filled])
            cut = cut.to(frame.device)
        with torch.inference_mode():
            shared = None if noise is None else tuple(one.expand(len(filled), -1) for one in noise)
            made = model.restore(frames[:, None], None, shared, level, painted=cut, painted_level=painted_level)
        yield from made.levels[0][: len(now)].float().cpu().numpy()


def _padded_painting(
    painted: FloatArray, size: tuple[int, int], padded: tuple[int, int], traits: ModelTraits, level: int
) -> Tensor:
    """A painted picture of a level, grown at the bottom and the right as the frame is."""
    expected = level_size(*size, level, traits.upscale)
    if painted.shape[-2:] != expected:
        raise UsageError(
            f"the painted picture has {painted.shape[-1]} x {painted.shape[-2]} pixels; expected {expected[1]} x "
            f"{expected[0]}, the size it was exported with"
        )
    height, width = level_size(*padded, level, traits.upscale)
    return reflect_pad(torch.from_numpy(painted), 0, height - expected[0], 0, width - expected[1])


def _scale(traits: ModelTraits, level: int) -> "_Scale":
    return _Scale(traits.upscale if level == 1 else 1, level - 1)


@dataclass(frozen=True)
class _Scale:
    """From packed pixels to those of a level's picture."""

    factor: int
    shift: int

    def __call__(self, packed_px: int) -> int:
        return (packed_px * self.factor) >> self.shift


def _cut(whole: Tensor, row: int, col: int, traits: ModelTraits, level: int) -> Tensor:
    scale = _scale(traits, level)
    side = scale(traits.tile)
    return whole[:, scale(row) : scale(row) + side, scale(col) : scale(col) + side]
