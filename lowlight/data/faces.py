"""Faces: drawn ones whose glasses are known, with a twin that wears none, and photographs from a local folder.

A drawn face is a backdrop, shoulders, hair, a shaded ellipse of skin with ears, brows, eyes, nose and mouth, and in
some faces glasses: dark rims, a bridge, temples and slightly tinted lenses. All values are in the sRGB curve.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.draws import EpochOrder
from lowlight.data.face_drawing import draw_face
from lowlight.data.photos import HELD_OUT_SHARE, PhotoSet, open_photos

Split = Literal["train", "validation"]
FaceArray = npt.NDArray[np.float32]
_ORDER_STREAM, _FACE_STREAM, _HELD_OUT_STREAM = 11, 12, 13
_KEPT_PX = 1 << 28  # pixels of faces kept in memory as bytes


@dataclass(frozen=True, kw_only=True)
class FacesConfig:
    """Which faces train."""

    count: int = 4000  # drawn faces
    glasses_share: float = 0.4  # of drawn faces that wear glasses
    photographs: bool = False  # faces from the photos of the folder, cropped and resized, instead of drawn ones

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count is {self.count}; expected at least 1 face")
        if not 0 <= self.glasses_share <= 1:
            raise ConfigError(f"glasses_share is {self.glasses_share}; expected 0 to 1")


@dataclass(frozen=True, eq=False)
class Face:
    """A picture `[3, n, n]` in [0, 1]; where it is known, the same face without glasses, and where these differ.

    `mask [n, n]` is bool; without glasses it is all False and the twin is the picture.
    """

    picture: Tensor
    twin: Tensor | None = None
    mask: Tensor | None = None


class FaceSource:
    """Training batches of faces: every face once an epoch, in an order that (seed, epoch) gives; there are no frames.

    `faces` draws or reads one face by its number; what was read is kept as bytes.
    """

    def __init__(
        self,
        faces: Callable[[int], Face],
        count: int,
        about: dict[str, Any],
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.faces, self.count, self.about, self.seed = faces, count, about, seed
        self.device = device
        self._order = EpochOrder(count, batch, seed, _ORDER_STREAM, noun="faces")
        self.steps_per_epoch = self._order.steps
        self._kept: dict[int, Tensor] = {}

    def batch(self, step: int) -> Batch:
        """Training items of one step."""
        pictures = [self._picture(index) for index in self._order.chosen(step).tolist()]
        return face_batch(torch.stack(pictures).to(self.device))

    def describe(self) -> dict[str, Any]:
        """What a weights file should record of the data."""
        return {"name": "faces", **self.about}

    def _picture(self, index: int) -> Tensor:
        if index not in self._kept:
            pixels = (self.faces(index).picture * 255 + 0.5).to(torch.uint8)
            if (len(self._kept) + 1) * pixels.numel() > 3 * _KEPT_PX:
                return pixels.float() / 255
            self._kept[index] = pixels
        return self._kept[index].float() / 255


def face_batch(pictures: Tensor) -> Batch:
    """Put pictures `[B, 3, n, n]` into a batch without frames."""
    count, _, height, width = pictures.shape
    return Batch(pictures.new_empty(count, 0, 3, height, width), pictures, pictures.new_empty(count, 0))


def drawn_face(index: int, side_px: int, glasses_share: float = 0.4, split: Split = "train") -> Face:
    """Draw the face with a number; the same numbers give the same face, and no validation face is a training one."""
    kind = _FACE_STREAM if split == "train" else _HELD_OUT_STREAM
    rng = np.random.default_rng((kind, index))
    glasses = bool(rng.random() < glasses_share)
    seed = int(rng.integers(1 << 62))
    # The twin is drawn from the same seed, so glasses must be the last thing that is drawn.
    twin = _as_tensor(draw_face(seed, side_px, glasses=False))
    if not glasses:
        return Face(twin, twin, torch.zeros(side_px, side_px, dtype=torch.bool))
    picture = _as_tensor(draw_face(seed, side_px, glasses=True))
    return Face(picture, twin, (picture - twin).abs().amax(0) > 1 / 255)


def read_faces(folder: Path, side_px: int, split: Split = "train") -> tuple[Callable[[int], Face], PhotoSet]:
    """Open the photos of a folder as faces: the centre square, resized. One in 16 is kept for validation.

    Gives the reader of one face, and the photos; `DataError` where there are none.
    """
    # Of each photo only the small face is kept, by whoever asks.
    train, held_out = open_photos(folder, upright=True, keep_bytes=0).split()
    photos = train if split == "train" else held_out
    if not len(photos):
        raise DataError(
            f"{folder} has no photos of faces for {split} (one in {HELD_OUT_SHARE} is kept aside); add some"
        )
    return lambda index: Face(centre_square(photos.readable(index), side_px)), photos


def centre_square(pixels: npt.NDArray[np.uint8], side_px: int) -> Tensor:
    """The centre square of uint8 `[H, W, 3]`, resized to `[3, side_px, side_px]` in [0, 1]."""
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = torch.from_numpy(pixels[top : top + side, left : left + side].copy()).movedim(-1, 0)[None].float() / 255
    resized = torch.nn.functional.interpolate(
        square, (side_px, side_px), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].clamp(0, 1)


def open_faces(
    path: Path, traits: ModelTraits, config: FacesConfig, batch: int, seed: int, device: torch.device
) -> FaceSource:
    """Open the training faces for a network of finished colour pictures; `path` is read for photographs only."""
    if traits.kind != "image" or traits.out_channels != 3 or traits.max_frames:
        raise ConfigError(
            f"faces are colour pictures made from nothing else; this network reads {traits.max_frames} frames and "
            f"gives {traits.out_channels} channels, choose another dataset or a lapcvae-faces model"
        )
    side = traits.tile
    if config.photographs:
        faces, photos = read_faces(path, side)
        about = {"photos": len(photos), "side_px": side, "photo_hash": photos.digest()}
        return FaceSource(faces, len(photos), about, batch, seed, device)
    about = {"drawn": config.count, "glasses_share": config.glasses_share, "side_px": side}
    return FaceSource(
        lambda index: drawn_face(index, side, config.glasses_share), config.count, about, batch, seed, device
    )


def _as_tensor(pixels: FaceArray) -> Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0).contiguous()
