"""FusionT-LESS: pictures of one object, of which every frame is hidden in part by five to eight others.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), section 5.1. The pictures are the real training pictures of
T-LESS (T. Hodan et al., WACV 2017) from a local folder with one folder a class. The paper does not say how large an
occluder is nor where it lies: here a picture of an occluder is as large as 50 pixels of the target's 64, and its
centre is uniform over the target.
"""

import hashlib
import logging
import math
from dataclasses import dataclass
from functools import partial
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
from lowlight.data.prepared import Plan, Progress, Rows, array_bytes, check_name, read_prepared, write_prepared

logger = logging.getLogger(__name__)

SIDE_PX = 64
HELD_OUT_EVERY = 10  # of the target's pictures
CLASS_FOLDERS = (".", "train_primesense", "t-less_v2/train_primesense", "tless/train_primesense")
SUFFIXES = (".png", ".jpg", ".jpeg")
NAME = "fusion-tless"
LAST_CLASS = 255
MANY_PICTURES = 2000  # from here on it is worth saying that cutting takes a while
# Arrays of a prepared file and their ranks. Occluders are gray and mask: [N, 2, side, side].
_KEYS = {"training": 3, "validation": 3, "training_occluders": 4, "validation_occluders": 4}
# Options that decide what is in it, and the arrays that record them.
_RECORDS = {
    "classes": "target_classes",
    "training_occluders": "training_occluder_classes",
    "validation_occluders": "validation_occluder_classes",
}
_RANKS = {**_KEYS, **dict.fromkeys(_RECORDS.values(), 1)}


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
        if not all(0 <= kind <= LAST_CLASS for kinds in _classes(self).values() for kind in kinds):
            raise ConfigError(f"classes and occluders are {_classes(self)}; expected numbers from 0 to {LAST_CLASS}")
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

    def hashes(self) -> dict[str, str]:
        """Hash of the pictures and of the cut objects."""
        held = self.pictures.numpy().tobytes() + self.occluders.numpy().tobytes()
        return {"sha256": hashlib.sha256(held).hexdigest()}

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

    Cutting the objects of the whole set takes minutes, so a prepared file is better for more than one run. One of
    other classes or sizes than the configuration's raises `DataError`.
    """
    parts = _parts(path, config) if path.is_dir() else None

    def read(part: str) -> Objects:
        targets, occluders = keys = part, f"{part}_occluders"
        arrays = _read_cut(path, config, keys) if parts is None else _cut_now(path, parts, config, keys)
        return Objects(arrays[targets], arrays[occluders], config)

    return FusionSets(partial(read, "training"), partial(read, "validation"))


def open_fusion_tless(
    path: Path, traits: ModelTraits, config: FusionTlessConfig, batch: int, seed: int, device: torch.device
) -> FusionSource:
    """Training batches of FusionT-LESS."""
    check_traits(traits, Objects.shape, "FusionT-LESS")
    return FusionSource(read_fusion_tless(path, config), config.max_frames, batch, seed, device)


def plan_fusion_tless(folder: Path, config: FusionTlessConfig | None = None, limit: int | None = None) -> Plan:
    """Say what one `.npz` file of a folder of classes takes; at most the first `limit` pictures of each class.

    Raises `DataError` where a class has no pictures.
    """
    config = config or FusionTlessConfig()
    parts = _parts(folder, config, limit)
    total = sum(map(len, parts.values()))

    def write(path: Path, progress: Progress | None = None) -> dict[str, int]:
        check_name(path)  # before minutes are spent
        arrays = {key: Rows.of(array) for key, array in _build(folder, parts, config, progress).items()}
        records = {_RECORDS[key]: Rows.of(np.array(kinds, np.uint8)) for key, kinds in _classes(config).items()}
        counts = write_prepared(path, arrays | records)
        return {key: counts[key] for key in arrays}

    return Plan(total, sum(array_bytes(len(files), _shape(key, config)) for key, files in parts.items()), write)


def prepare_fusion_tless(folder: Path, path: Path, config: FusionTlessConfig | None = None) -> dict[str, int]:
    """Reduce and cut the pictures of a folder of classes into one `.npz` file; returns how many there are of each."""
    return plan_fusion_tless(folder, config).write(path, None)


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


def _classes(config: FusionTlessConfig) -> dict[str, tuple[int, ...]]:
    return {key: getattr(config, key) for key in _RECORDS}


def _parts(folder: Path, config: FusionTlessConfig, limit: int | None = None) -> dict[str, list[Path]]:
    """The pictures behind each array of a prepared file; of the targets every tenth validates."""
    pictures = class_pictures(folder)
    wanted = {kind for classes in _classes(config).values() for kind in classes}
    if missing := sorted(wanted - set(pictures)):
        raise DataError(
            f"{folder} has no pictures of class {', '.join(map(str, missing))}; expected folders such as 01/rgb, "
            "or choose other classes"
        )
    targets, *occluders = (
        [file for kind in classes for file in pictures[kind][:limit]] for classes in _classes(config).values()
    )
    if len(targets) < 2:
        raise DataError(f"{folder} has {len(targets)} pictures to be restored; expected at least 2")
    training = [file for place, file in enumerate(targets) if place % HELD_OUT_EVERY]
    return dict(zip(_KEYS, (training, targets[::HELD_OUT_EVERY], *occluders), strict=True))


def _shape(key: str, config: FusionTlessConfig) -> tuple[int, ...]:
    return (2, config.occluder_px, config.occluder_px) if _KEYS[key] == 4 else (SIDE_PX, SIDE_PX)


def _cut_now(
    folder: Path, parts: dict[str, list[Path]], config: FusionTlessConfig, keys: tuple[str, str]
) -> dict[str, npt.NDArray[np.uint8]]:
    parts = {key: parts[key] for key in keys}
    if (count := sum(map(len, parts.values()))) > MANY_PICTURES:
        logger.warning("%d pictures are read and cut now, which takes minutes; lowlight prepare does it once", count)
    return _build(folder, parts, config)


def _read_cut(path: Path, config: FusionTlessConfig, keys: tuple[str, str]) -> dict[str, npt.NDArray[np.uint8]]:
    arrays = read_prepared(path, {key: _RANKS[key] for key in (*keys, *_RECORDS.values())}, NAME)
    for key, kinds in _classes(config).items():
        if (found := arrays[_RECORDS[key]].tolist()) != list(kinds):
            raise DataError(
                f"{path} was prepared with {key} = {found}, and {list(kinds)} are asked for; "
                f"use --set 'data.options.{key}={found}', or prepare it again"
            )
    if (side := arrays[keys[1]].shape[-1]) != config.occluder_px:
        raise DataError(
            f"{path} was prepared with occluder_px = {side}, and {config.occluder_px} is asked for; "
            f"use --set 'data.options.occluder_px={side}', or prepare it again"
        )
    return arrays


def _build(
    folder: Path, parts: dict[str, list[Path]], config: FusionTlessConfig, progress: Progress | None = None
) -> dict[str, npt.NDArray[np.uint8]]:
    """Read targets `[N, 64, 64]` and cut occluders `[M, 2, side, side]`, without those that have no outline."""
    done, total = 0, sum(map(len, parts.values()))
    arrays = {}
    for key, files in parts.items():
        made = []
        for file in files:
            item = cut_object(file, config.occluder_px) if _KEYS[key] == 4 else read_gray(file, SIDE_PX)
            if item is not None:
                made.append(item)
            done += 1
            if progress:
                progress(done, total)
        if not made:
            raise DataError(f"no object could be cut from the pictures of {folder}; expected one on a plain ground")
        if len(made) < len(files):
            logger.warning("%d of %d pictures of %s show no outline", len(files) - len(made), len(files), folder)
        arrays[key] = np.stack(made)
    return arrays


def _uniform(shape: tuple[int, ...], reach: float, generator: Generator) -> Tensor:
    return reach * (2 * torch.rand(shape, generator=generator, device=generator.device) - 1)


def _scales(number: int, side_px: int, config: FusionTlessConfig, generator: Generator) -> Tensor:
    """Sides of `number` pictures of `side_px`, in pixels of the canvas."""
    return side_px + _uniform((number,), config.scale_px, generator)
