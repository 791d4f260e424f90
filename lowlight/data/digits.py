"""Handwritten digits: MNIST and KMNIST from local files, and batches of them.

MNIST comes as idx files (Y. LeCun, C. Cortes, C. Burges; format: magic number 0 0 type rank, sizes as big-endian
32-bit numbers, then the values), packed with gzip or not; KMNIST (T. Clanuwat et al. 2018) also as `.npz` files.
All images stay in memory, which takes 188 MB for 60 000 of them.
"""

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.errors import BrokenFileError, ConfigError, DataError
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.archives import read_arrays
from lowlight.data.draws import EpochOrder, stream

Split = Literal["train", "validation"]
Task = Literal["reconstruction", "transfer"]

SIDE_PX = 28
CLASSES = 10
_IDX_UINT8 = 0x08
# Names of the images' and the labels' file of a split, without what packing appends.
_IDX_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "validation": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_NPZ_NAMES = {
    "train": ("kmnist-train-imgs.npz", "kmnist-train-labels.npz"),
    "validation": ("kmnist-test-imgs.npz", "kmnist-test-labels.npz"),
}
_TRANSFER_STREAM, _ORDER_STREAM = 1, 2  # so that no two kinds of draws of a dataset share a seed


@dataclass(frozen=True, kw_only=True)
class DigitsConfig:
    """What is learned from digits."""

    task: Task = "reconstruction"  # transfer: restore digits whose pixels were inverted at random
    limit: int | None = None  # only the first so many images train

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; expected at least 1 image")


@dataclass(frozen=True, eq=False)
class Digits:
    """Images `[N, 28, 28]`, float32 in [0, 1] with 1 = ink, and their classes `[N]`, int64."""

    name: str  # of the folder they came from
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """Hash of the images and classes."""
        pixels = (self.images * 255 + 0.5).to("cpu", torch.uint8)
        return hashlib.sha256(pixels.numpy().tobytes() + self.labels.cpu().numpy().tobytes()).hexdigest()

    def first(self, count: int) -> "Digits":
        """The first `count` digits, all where there are fewer."""
        return Digits(self.name, self.images[:count], self.labels[:count])

    def to(self, device: torch.device) -> "Digits":
        """The same digits on a device."""
        return Digits(self.name, self.images.to(device), self.labels.to(device))


def read_digits(folder: Path, split: Split) -> Digits:
    """Read a split of MNIST or KMNIST: `train` (60 000 images) or `validation` (10 000, the published test set)."""
    images_path, labels_path = _find(folder, split)
    images, labels = _read_array(images_path), _read_array(labels_path)
    if images.ndim != 3 or images.shape[1:] != (SIDE_PX, SIDE_PX):
        raise DataError(f"{images_path} holds values of shape {images.shape}; expected images [N, 28, 28]")
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path} holds {labels.size} labels for {len(images)} images; take both files from one set"
        )
    if not len(images):
        raise DataError(f"{images_path} holds no images; fetch it again")
    if labels.max() >= CLASSES:
        raise DataError(f"{labels_path} has class {labels.max()}; expected 0 to {CLASSES - 1}")
    pixels = torch.from_numpy(images.astype(np.float32) / 255)
    return Digits(folder.resolve().name, pixels, torch.from_numpy(labels.astype(np.int64)))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an idx file of bytes, packed with gzip where its name ends in `.gz`."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise BrokenFileError(f"{path} cannot be read ({error}); fetch it again") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise BrokenFileError(f"{path} is no idx file: it begins with {content[:4].hex() or 'nothing'}, not with 0000")
    kind, rank = content[2], content[3]
    if kind != _IDX_UINT8:
        raise BrokenFileError(f"{path} holds values of idx type {kind:#04x}; expected 0x08, bytes")
    start = 4 + 4 * rank
    if len(content) < start:
        raise BrokenFileError(f"{path} ends within its header; fetch it again")
    sizes = struct.unpack(f">{rank}I", content[4:start])
    if len(content) - start != math.prod(sizes):
        raise BrokenFileError(
            f"{path} holds {len(content) - start} values but its header promises {math.prod(sizes)}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def invert_at_random(images: Tensor, generator: torch.Generator) -> Tensor:
    """Invert each value of `images` in [0, 1] (v to 1 - v) with probability 1/2, drawn from `generator`.

    Only |v - 1/2| survives. Gray levels are kept: nothing could be learned from binary images. Source: thesis,
    image transfer on MNIST.
    """
    inverted = torch.randint(0, 2, images.shape, generator=generator, device=generator.device, dtype=torch.uint8)
    return (images - inverted.to(images.device)).abs()


def digit_batch(images: Tensor, labels: Tensor, task: Task, generator: torch.Generator) -> Batch:
    """Put images `[B, 28, 28]` into a batch: for `transfer` one inverted frame each, else no frames.

    The target is `[B, 1, 28, 28]`, frames are `[B, N, 1, 28, 28]` with N = 1 or 0.
    """
    target = images[:, None]
    if task == "transfer":
        return Batch(
            invert_at_random(target, generator)[:, None], target, images.new_ones(len(images), 1), labels=labels
        )
    none = images.new_empty(len(images), 0, 1, SIDE_PX, SIDE_PX)
    return Batch(none, target, images.new_empty(len(images), 0), labels=labels)


class DigitSource:
    """Training batches of digits; what is drawn for a batch depends on (seed, step) alone."""

    def __init__(self, digits: Digits, task: Task, batch: int, seed: int) -> None:
        self.digits, self.task, self.seed = digits, task, seed
        self._order = EpochOrder(len(digits), batch, seed, _ORDER_STREAM, noun="images")
        self.steps_per_epoch = self._order.steps

    def batch(self, step: int) -> Batch:
        """Training items of one step."""
        chosen = self._order.chosen(step).to(self.digits.images.device)
        generator = stream(self.seed, _TRANSFER_STREAM, step)
        return digit_batch(self.digits.images[chosen], self.digits.labels[chosen], self.task, generator)

    def describe(self) -> dict[str, Any]:
        """What a weights file should record of the data."""
        told = {"name": self.digits.name, "images": len(self.digits), "task": self.task}
        return {**told, "sha256": self.digits.sha256}


def open_digits(
    path: Path, traits: ModelTraits, config: DigitsConfig, batch: int, seed: int, device: torch.device
) -> DigitSource:
    """Open the training images of a folder for a network; `ConfigError` where it was made for something else."""
    channels = (traits.in_channels, traits.out_channels)
    if traits.posterior_reads != "target":
        raise ConfigError(
            "digits train networks whose posterior reads the digit itself; take dataset repair for this one"
        )
    if traits.tile != SIDE_PX or channels != (1, 1):
        raise ConfigError(
            f"digits have {SIDE_PX} x {SIDE_PX} gray pixels, and this network reads {channels[0]} and gives "
            f"{channels[1]} channels of {traits.tile} pixels a side; choose another dataset or model digit-vae"
        )
    if (config.task == "transfer") != (traits.max_frames > 0):
        reads, task = ("an", "transfer") if traits.max_frames else ("no", "reconstruction")
        raise ConfigError(
            f"the prior of this network reads {reads} image, which task {config.task!r} does not fit; "
            f"set data.options.task to {task!r}, or choose another prior"
        )
    digits = read_digits(path, "train")
    return DigitSource(digits.first(config.limit or len(digits)).to(device), config.task, batch, seed)


def _find(folder: Path, split: Split) -> tuple[Path, Path]:
    if folder.is_file():
        raise DataError(f"{folder} is a file; digits come from a folder with the four files of MNIST")
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; expected one with the four files of MNIST")
    idx_images, idx_labels = _IDX_NAMES[split]
    # Some copies of MNIST have a dot before the rank.
    for images, labels in (
        (idx_images, idx_labels),
        (idx_images.replace("-idx", ".idx"), idx_labels.replace("-idx", ".idx")),
    ):
        for suffix in ("", ".gz"):
            if (folder / f"{images}{suffix}").is_file():
                return folder / f"{images}{suffix}", _partner(folder, labels)
    images, labels = _NPZ_NAMES[split]
    if (folder / images).is_file():
        return folder / images, _partner(folder, labels)
    raise DataError(f"{folder} has no {split} images; expected {idx_images}, {idx_images}.gz or {images}")


def _partner(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder} has images but no {name}; put the labels beside them")


def _read_array(path: Path) -> npt.NDArray[np.uint8]:
    if path.suffix != ".npz":
        return read_idx(path)
    values: npt.NDArray[np.uint8] = read_arrays(path, ["arr_0"], "fetch it again")["arr_0"]
    if values.dtype != np.uint8:
        raise BrokenFileError(f"{path} holds values of type {values.dtype}; expected bytes")
    return values
