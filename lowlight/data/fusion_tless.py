"""FusionT-LESS: pictures of one object, of which every frame is hidden in part by five to eight others.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), section 5.1. The pictures are the real training pictures of
T-LESS (T. Hodan et al., WACV 2017) from a local folder with one folder a class. The paper does not say how large an
occluder is nor where it lies: here a picture of an occluder is as large as 50 pixels of the target's 64, and its
centre is uniform over the target.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import ModelTraits
from lowlight.data.fusion_source import FusionSets, FusionSource, check_frame_count, check_traits
from lowlight.data.object_cutting import cut_object, read_gray
from lowlight.data.prepared import read_prepared, write_prepared

logger = logging.getLogger(__name__)

SIDE_PX = 64
HELD_OUT_EVERY = 10  # of the target's pictures
CLASS_FOLDERS = (".", "train_primesense", "t-less_v2/train_primesense")
SUFFIXES = (".png", ".jpg", ".jpeg")
NAME = "fusion-tless"
# Arrays of a prepared file and their ranks. Occluders are gray and mask: [N, 2, side, side].
_KEYS = {"training": 3, "validation": 3, "training_occluders": 4, "validation_occluders": 4}


@dataclass(frozen=True, kw_only=True)
class FusionTlessConfig:
    """Which classes are targets and occluders, and how frames are composed. The defaults are the paper's."""

    max_frames: int = 3
    classes: tuple[int, ...] = (19, 20, 21, 22, 23, 24)  # the published counts fit five of them
    training_occluders: tuple[int, ...] = (1, 2, 5, 6, 7, 11, 12, 13, 14, 25, 26, 27)
    validation_occluders: tuple[int, ...] = (3, 4, 8, 9, 10, 15, 16, 17, 18, 28, 29, 30)
    occluders: tuple[int, int] = (5, 8)  # in one frame, both ends included
    occluder_px: int = 50
    turn_deg: float = 180.0  # largest angle, either way
    shift_px: float = 4.0  # of a training target, either way
    scale_px: float = 4.0  # by how much a side grows or shrinks at most

    def __post_init__(self) -> None:
        low, high = self.occluders
        check_frame_count(self.max_frames)
        if not 0 <= low <= high:
            raise ConfigError(f"occluders are {low} to {high}; expected 0 or more, the lower number first")
        if not 4 <= self.occluder_px <= SIDE_PX:
            raise ConfigError(f"occluder_px is {self.occluder_px}; expected 4 to {SIDE_PX}")
        if not 0 <= self.scale_px < self.occluder_px or min(self.shift_px, self.turn_deg) < 0:
            raise ConfigError("turn_deg, shift_px and scale_px must be 0 or more, and scale_px below occluder_px")


class Objects:
    """Gray pictures of 64 x 64, `[N, 64, 64]` uint8, and cut objects that hide them, `[M, 2, side, side]` uint8."""

    name = NAME
    shape = (1, SIDE_PX, SIDE_PX)

    def __init__(
        self, pictures: npt.NDArray[np.uint8], occluders: npt.NDArray[np.uint8], config: FusionTlessConfig
    ) -> None:
        self.config = config
        self.pictures, self.occluders = torch.from_numpy(pictures), torch.from_numpy(occluders)

    def __len__(self) -> int:
        return len(self.pictures)

    def targets(self, indices: Tensor) -> Tensor:
        """Pictures `[B, 1, 64, 64]` in [0, 1]."""
        return self.pictures[indices][:, None].float() / 255

    def augment(self, targets: Tensor, generator: Generator) -> Tensor:
        """Mirror, turn, scale and move each picture; what comes into view is black."""
        config = self.config
        shift = _uniform((len(targets), 2), config.shift_px, generator)
        return place_pictures(targets, _scales(len(targets), SIDE_PX, config, generator), shift, config, generator)

    def frames(self, targets: Tensor, count: int, generator: Generator) -> Tensor:
        """Frames `[B, K, 1, 64, 64]`, each with its own occluders, also mirrored, turned and scaled."""
        config, (low, high), number = self.config, self.config.occluders, len(targets) * count
        device = generator.device
        shown = targets.repeat_interleave(count, 0)
        wanted = torch.randint(low, high + 1, (number,), generator=generator, device=device)
        for layer in range(high):  # from the lowest to the one on top
            chosen = torch.randint(len(self.occluders), (number,), generator=generator, device=device)
            cut = self.occluders[chosen.cpu()].to(device).float() / 255
            side = _scales(number, config.occluder_px, config, generator)
            shift = _uniform((number, 2), SIDE_PX / 2, generator)
            placed = place_pictures(cut, side, shift, config, generator)
            cover = placed[:, 1:] * (layer < wanted)[:, None, None, None]
            shown = shown + cover * (placed[:, :1] - shown)
        return shown.clamp(0, 1).view(len(targets), count, *self.shape)


def place_pictures(
    pictures: Tensor, side_px: Tensor, shift_px: Tensor, config: FusionTlessConfig, generator: Generator
) -> Tensor:
    """Draw pictures `[N, C, s, s]` on a black canvas `[N, C, 64, 64]`, mirrored and turned at random.

    Each has the size `side_px [N]` there, and its centre lies `shift_px [N, 2]`, right and down, from the canvas's.
    """
    number, device = len(pictures), generator.device
    if not number:
        return pictures.new_empty(0, pictures.shape[1], SIDE_PX, SIDE_PX)
    angle = _uniform((number,), math.radians(config.turn_deg), generator)
    mirror = 1 - 2 * torch.randint(2, (number,), generator=generator, device=device).float()
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((mirror * cos, mirror * sin, -sin, cos), -1).view(-1, 2, 2)
    matrix = turn * (SIDE_PX / side_px)[:, None, None]  # of the canvas' places to the picture's, both in [-1, 1]
    offset = -(matrix @ (shift_px * 2 / SIDE_PX)[:, :, None])
    grid = F.affine_grid(torch.cat((matrix, offset), 2), [number, 1, SIDE_PX, SIDE_PX], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def read_fusion_tless(path: Path, config: FusionTlessConfig) -> FusionSets:
    """FusionT-LESS from a folder of classes, cut on the spot, or from a file that `prepare_fusion_tless` wrote.

    Cutting the objects of the whole set takes minutes, so a prepared file is better for more than one run. Its
    classes are those it was prepared with.
    """
    arrays = build_fusion_tless(path, config) if path.is_dir() else read_prepared(path, _KEYS, NAME)
    training, validation = (
        Objects(arrays[part], arrays[f"{part}_occluders"], config) for part in ("training", "validation")
    )
    return FusionSets(training, validation)


def open_fusion_tless(
    path: Path, traits: ModelTraits, config: FusionTlessConfig, batch: int, seed: int, device: torch.device
) -> FusionSource:
    """Training batches of FusionT-LESS."""
    check_traits(traits, Objects.shape, "FusionT-LESS")
    return FusionSource(read_fusion_tless(path, config), config.max_frames, batch, seed, device)


def prepare_fusion_tless(folder: Path, path: Path, config: FusionTlessConfig | None = None) -> dict[str, int]:
    """Reduce and cut the pictures of a folder of classes into one `.npz` file; returns how many there are of each."""
    arrays = build_fusion_tless(folder, config or FusionTlessConfig())
    write_prepared(path, arrays)
    return {key: len(array) for key, array in arrays.items()}


def build_fusion_tless(folder: Path, config: FusionTlessConfig) -> dict[str, npt.NDArray[np.uint8]]:
    """Read targets `[N, 64, 64]`, every tenth of which validates, and occluders `[M, 2, side, side]`.

    A class is a folder whose name is its number, with pictures in it or in its `rgb`. Raises `DataError` where a
    class has none.
    """
    pictures = class_pictures(folder)
    wanted = {*config.classes, *config.training_occluders, *config.validation_occluders}
    if missing := sorted(wanted - set(pictures)):
        raise DataError(
            f"{folder} has no pictures of class {', '.join(map(str, missing))}; expected folders such as 01/rgb, "
            "or choose other classes"
        )
    files = [file for kind in config.classes for file in pictures[kind]]
    targets = np.stack([read_gray(file, SIDE_PX) for file in files])
    is_held_out = np.arange(len(files)) % HELD_OUT_EVERY == 0
    arrays = {"training": targets[~is_held_out], "validation": targets[is_held_out]}
    if not len(arrays["training"]):
        raise DataError(f"{folder} has {len(files)} pictures to be restored; expected at least 2")
    kinds = {"training_occluders": config.training_occluders, "validation_occluders": config.validation_occluders}
    for key, classes in kinds.items():
        found = [cut_object(file, config.occluder_px) for kind in classes for file in pictures[kind]]
        cut = [each for each in found if each is not None]
        if not cut:
            raise DataError(f"no object could be cut from the pictures of {folder}; expected one on a plain ground")
        if len(cut) < len(found):
            logger.warning("%d of %d pictures of %s show no outline", len(found) - len(cut), len(found), folder)
        arrays[key] = np.stack(cut)
    return arrays


def class_pictures(folder: Path) -> dict[int, list[Path]]:
    """The pictures of every class of a folder, by name."""
    for place in (folder / name for name in CLASS_FOLDERS):
        if not place.is_dir():
            continue
        found = {}
        for each in sorted(p for p in place.iterdir() if p.is_dir() and p.name.isdecimal()):
            inner = each / "rgb" if (each / "rgb").is_dir() else each
            if files := sorted(p for p in inner.iterdir() if p.suffix.lower() in SUFFIXES):
                found[int(each.name)] = files
        if found:
            return found
    raise DataError(f"{folder} has no folders of classes with pictures; expected T-LESS's train_primesense")


def _uniform(shape: tuple[int, ...], reach: float, generator: Generator) -> Tensor:
    return reach * (2 * torch.rand(shape, generator=generator, device=generator.device) - 1)


def _scales(number: int, side_px: int, config: FusionTlessConfig, generator: Generator) -> Tensor:
    """Sides of `number` pictures of `side_px`, in pixels of the canvas."""
    return side_px + _uniform((number,), config.scale_px, generator)
