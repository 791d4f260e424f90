"""FusionCelebA: faces of which every frame shows the parts within a few ellipses.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), section 5.1. The faces are the aligned and cropped pictures of
CelebA (Z. Liu et al., ICCV 2015), 178 x 218, from a local folder: rows 40 to 188 and columns 15 to 163, reduced by
area to 64 x 64. Frames have no noise; training faces are mirrored with probability 1/2.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import ModelTraits
from lowlight.data.ellipses import EllipseLaw, ellipse_masks
from lowlight.data.fusion_source import FusionSets, FusionSource, check_frame_count, check_traits
from lowlight.data.prepared import Plan, Progress, Rows, array_bytes, read_prepared, write_prepared

logger = logging.getLogger(__name__)

SIDE_PX = 64
ALIGNED_SIZE = (178, 218)  # width and height
CROP_BOX = (15, 40, 163, 188)  # left, top, right, bottom: 148 x 148
IMAGE_FOLDERS = (".", "img_align_celeba", "Img/img_align_celeba")
PARTITION_FILES = ("list_eval_partition.txt", "Eval/list_eval_partition.txt", "../list_eval_partition.txt")
_TRAIN, _VALIDATION = 0, 1  # of the published partition; 2 is its test set
HELD_OUT_EVERY = 10  # without the partition's list
_KEYS = {"training": 4, "validation": 4}  # arrays of a prepared file and their ranks


@dataclass(frozen=True, kw_only=True)
class FusionCelebaConfig:
    """How frames of faces are made. The defaults are the paper's."""

    max_frames: int = 3
    ellipses: int = 4  # of one frame's mask
    radius_px: tuple[int, int] = (0, 14)
    mirror: float = 0.5  # probability that a training face is mirrored
    limit: int | None = None  # train on the first so many faces only

    def __post_init__(self) -> None:
        check_frame_count(self.max_frames)
        if not 0 <= self.mirror <= 1:
            raise ConfigError(f"mirror is {self.mirror}; expected a probability, 0 to 1")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; expected at least 1")
        self.law()  # refuses impossible ellipses

    def law(self) -> EllipseLaw:
        """The ellipses of one mask."""
        return EllipseLaw(self.ellipses, self.radius_px)


class Faces:
    """Faces of 64 x 64, decoded when they are first asked for and then kept, 12 kB each."""

    name = "fusion-celeba"
    shape = (3, SIDE_PX, SIDE_PX)

    def __init__(self, pictures: "npt.NDArray[np.uint8] | list[Path]", config: FusionCelebaConfig) -> None:
        self.config = config
        self._files = pictures if isinstance(pictures, list) else None
        self._count = len(pictures)
        # Memory is taken when a row is first written.
        self._faces = np.empty((self._count, *self.shape), np.uint8) if isinstance(pictures, list) else pictures
        self._is_read = np.zeros(self._count, bool)

    def __len__(self) -> int:
        return self._count

    def hashes(self) -> dict[str, str]:
        """Hash of the faces; of files that are decoded later, of their names and sizes."""
        if self._files is None:
            return {"sha256": hashlib.sha256(self._faces.tobytes()).hexdigest()}
        listed = "\n".join(f"{file.name} {file.stat().st_size}" for file in self._files)
        return {"files_sha256": hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()}

    def targets(self, indices: Tensor) -> Tensor:
        """Faces `[B, 3, 64, 64]` in [0, 1]."""
        places = indices.numpy()
        if self._files is not None:
            for place in places[~self._is_read[places]].tolist():
                self._faces[place] = read_face(self._files[place])
                self._is_read[place] = True
        return torch.from_numpy(self._faces[places]).float() / 255

    def augment(self, targets: Tensor, generator: Generator) -> Tensor:
        """Mirror each face with the configured probability."""
        coins = torch.rand(len(targets), 1, 1, 1, generator=generator, device=generator.device)
        return torch.where(coins < self.config.mirror, targets.flip(-1), targets)

    def frames(self, targets: Tensor, count: int, generator: Generator) -> Tensor:
        """Masked frames `[B, K, 3, 64, 64]`; one mask for the three colours."""
        masks = ellipse_masks(len(targets) * count, SIDE_PX, self.config.law(), generator)
        return targets[:, None] * masks.view(len(targets), count, 1, SIDE_PX, SIDE_PX)


def read_fusion_celeba(path: Path, config: FusionCelebaConfig) -> FusionSets:
    """FusionCelebA from CelebA's folder of aligned pictures, or from a file that `prepare_fusion_celeba` wrote."""
    if path.is_dir():
        training, validation = partition(path, config.limit)
        return FusionSets(partial(Faces, training, config), partial(Faces, validation, config))

    def read(part: str, limit: int | None) -> Faces:
        return Faces(read_prepared(path, {part: _KEYS[part]}, Faces.name)[part][:limit], config)

    return FusionSets(partial(read, "training", config.limit), partial(read, "validation", None))


def open_fusion_celeba(
    path: Path, traits: ModelTraits, config: FusionCelebaConfig, batch: int, seed: int, device: torch.device
) -> FusionSource:
    """Training batches of FusionCelebA."""
    check_traits(traits, Faces.shape, "FusionCelebA")
    return FusionSource(read_fusion_celeba(path, config), config.max_frames, batch, seed, device)


def plan_fusion_celeba(folder: Path, limit: int | None = None) -> Plan:
    """Say what one `.npz` file of CelebA's folder takes, 12 kB for a face; at most `limit` faces of each part."""
    parts = dict(zip(_KEYS, partition(folder, limit, limit), strict=True))
    total = sum(map(len, parts.values()))

    def write(path: Path, progress: Progress | None = None) -> dict[str, int]:
        done = 0

        def faces(files: list[Path]) -> Iterator[npt.NDArray[np.uint8]]:
            nonlocal done
            for file in files:
                yield read_face(file)
                done += 1
                if progress:
                    progress(done, total)

        return write_prepared(path, {key: Rows(len(files), Faces.shape, faces(files)) for key, files in parts.items()})

    return Plan(total, array_bytes(total, Faces.shape), write)


def prepare_fusion_celeba(folder: Path, path: Path, limit: int | None = None) -> dict[str, int]:
    """Write the faces of CelebA's folder into one `.npz` file; returns how many of each part."""
    return plan_fusion_celeba(folder, limit).write(path, None)


def partition(
    folder: Path, limit: int | None = None, validation_limit: int | None = None
) -> tuple[list[Path], list[Path]]:
    """The training and validation pictures of CelebA's folder, by name, at most `limit` and `validation_limit`.

    `list_eval_partition.txt` tells them apart; without it every tenth picture validates. Raises `DataError` where
    there are no pictures, a listed one is missing, or the list cannot be read.
    """
    places = [folder / name for name in IMAGE_FOLDERS]
    files: list[Path] = next((found for place in places if (found := sorted(place.glob("*.jpg")))), [])
    if not files:
        raise DataError(f"{folder} has no .jpg files, nor has img_align_celeba in it; give CelebA's aligned pictures")
    lists = (base / name for base in (folder, files[0].parent) for name in PARTITION_FILES)
    list_path = next((candidate for candidate in lists if candidate.is_file()), None)
    if list_path is None:
        logger.warning("%s has no list_eval_partition.txt: every tenth picture is for validation", folder)
        training = [file for i, file in enumerate(files) if i % HELD_OUT_EVERY]
        validation = files[::HELD_OUT_EVERY]
    else:
        part = sorted(_read_partition(list_path).items())
        place = files[0].parent
        training, validation = ([place / name for name, kind in part if kind == k] for k in (_TRAIN, _VALIDATION))
    training, validation = training[:limit], validation[:validation_limit]
    if not training or not validation:
        raise DataError(
            f"{folder} has {len(training)} pictures for training and {len(validation)} for validation; "
            "expected some of each"
        )
    there = set(files)
    if missing := [file.name for file in (*training, *validation) if file not in there]:
        raise DataError(
            f"{folder} lacks {len(missing)} of the pictures that its list names, the first of them {missing[0]}; "
            "fetch them again"
        )
    return training, validation


def read_face(path: Path) -> npt.NDArray[np.uint8]:
    """One aligned picture, cropped and reduced: uint8 `[3, 64, 64]`, sRGB."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.size != ALIGNED_SIZE:
                raise DataError(
                    f"{path} has {image.width}x{image.height} pixels; expected 178x218, CelebA's aligned pictures"
                )
            face = image.convert("RGB").crop(CROP_BOX).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); fetch it again") from error
    return np.ascontiguousarray(np.asarray(face).transpose(2, 0, 1))


def _read_partition(path: Path) -> dict[str, int]:
    part = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise DataError(f"line {number} of {path} is {line[:60]!r}; expected a file's name and 0, 1 or 2")
        part[words[0]] = int(words[1])
    return part
