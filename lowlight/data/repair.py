"""Damaged digits and their clean versions: Gaussian noise, black boxes, or both.

Source: the student report "Repairing Images with Fisher Autoencoder" (KMNIST with noise of 0.05, 0.25 and 0.5, read
as standard deviations); the boxes are those of random erasing, Z. Zhong et al., AAAI 2020. Damage is never clipped:
networks see values outside [0, 1].
"""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.digits import SIDE_PX, Digits, DigitSource, read_digits
from lowlight.data.draws import stream

SMALL_DIGITS = Path("sklearn-digits")  # in place of a folder: the 1797 digits of 8 x 8 pixels that scikit-learn has
TRAIN_SHARE = 0.8  # of the training images, the rest validates
_SPLIT_STREAM, _TRAINING_STREAM, _FIXED_STREAM = 31, 32, 33


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    """What is done to the digits that are to be repaired."""

    damage: Literal["noise", "box", "noise+box"] = "noise"
    sigma: float = 0.25  # standard deviation of the noise
    noise_is_variance: bool = False  # read sigma as a variance instead
    box_area: tuple[float, float] = (0.1, 0.1)  # of the image, least and largest
    box_aspect: tuple[float, float] = (0.3, 3.3)  # height by width, drawn evenly in its logarithm
    target: Literal["clean", "damaged"] = "clean"  # damaged: reproduce what was read
    limit: int | None = None  # only the first so many images train
    split_seed: int = 0  # of the split into training, validation and test images; runs to be compared share it

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise ConfigError(f"sigma is {self.sigma}; expected at least 0")
        if not 0 < self.box_area[0] <= self.box_area[1] < 1:
            raise ConfigError(f"box_area is {self.box_area}; expected two growing fractions between 0 and 1")
        if not 0 < self.box_aspect[0] <= self.box_aspect[1]:
            raise ConfigError(f"box_aspect is {self.box_aspect}; expected two growing numbers above 0")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; expected at least 1 image")

    @property
    def std(self) -> float:
        """Standard deviation of the noise."""
        return math.sqrt(self.sigma) if self.noise_is_variance else self.sigma

    def __str__(self) -> str:
        noise = f"noise {self.std:.3g}"
        return {"noise": noise, "box": "black box", "noise+box": f"{noise}, black box"}[self.damage]


class Damaged(NamedTuple):
    """Damaged images `[B, 1, H, W]`, not clipped, and where boxes are, bool of the same shape."""

    images: Tensor
    boxes: Tensor


class RepairSplits(NamedTuple):
    """Digits to train on, to choose by and to be judged by, and a sentence that says where they are from."""

    train: Digits
    validation: Digits
    test: Digits
    told: str


def black_boxes(count: int, size: tuple[int, int], config: RepairConfig, generator: torch.Generator) -> Tensor:
    """One rectangle for each item, bool `[count, 1, H, W]`, wholly inside the image.

    Its area is within half a row or column of the share of the image that was drawn.
    """
    height, width = size
    shares, shapes, tops, lefts = torch.rand(4, count, generator=generator, dtype=torch.float64)
    (least, most), (flat, tall) = config.box_area, config.box_aspect
    area = (least + (most - least) * shares) * height * width
    aspect = (math.log(flat) + math.log(tall / flat) * shapes).exp()
    rows = (area * aspect).sqrt().round().clamp(1, height)
    cols = (area / rows).round().clamp(1, width)
    rows = torch.where(cols == width, (area / cols).round().clamp(1, height), rows)
    top, left = (tops * (height - rows + 1)).floor(), (lefts * (width - cols + 1)).floor()
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None]
    top, left, rows, cols = (each.long()[:, None, None] for each in (top, left, rows, cols))
    return ((y >= top) & (y < top + rows) & (x >= left) & (x < left + cols))[:, None]


def damage(images: Tensor, config: RepairConfig, generator: torch.Generator) -> Damaged:
    """Damage clean images `[B, 1, H, W]` in [0, 1] with draws from `generator`, a generator on the CPU."""
    boxes = torch.zeros(images.shape, dtype=torch.bool)
    if "noise" in config.damage:
        images = images + config.std * torch.randn(images.shape, generator=generator).to(images)
    if "box" in config.damage:
        size = (images.shape[2], images.shape[3])
        boxes = black_boxes(len(images), size, config, generator)
        images = images.masked_fill(boxes.to(images.device), 0.0)
    return Damaged(images, boxes.to(images.device))


def fixed_damage(images: Tensor, config: RepairConfig, seed: int, first: int = 0) -> Damaged:
    """Damage images `[B, 1, H, W]` for validation or test: item i gets what (seed, first + i) draws, always."""
    each = [damage(images[i : i + 1], config, stream(seed, _FIXED_STREAM, first + i)) for i in range(len(images))]
    return Damaged(*(torch.cat(parts) for parts in zip(*each, strict=True)))


def repair_batch(clean: Tensor, damaged: Tensor, labels: Tensor, config: RepairConfig) -> Batch:
    """Put clean and damaged images `[B, 1, H, W]` into a batch: one damaged frame, and the clean target."""
    target = clean if config.target == "clean" else damaged
    return Batch(damaged[:, None], target, clean.new_ones(len(clean), 1), labels=labels)


def split_digits(folder: Path, seed: int = 0) -> RepairSplits:
    """Read MNIST or KMNIST in three parts.

    The training images are split 80 to 20 into training and validation, the published test images stay for the test.
    Where a folder lacks the training images, the test images are split 80 to 10 to 10. `sklearn-digits` in place of a
    folder, where there is none of this name, means the digits that come with scikit-learn, split the same way.
    """
    if folder == SMALL_DIGITS and not folder.exists():
        return _in_three(read_small_digits(), seed, "the 8 x 8 digits of scikit-learn")
    test = read_digits(folder, "validation")
    if any("train-im" in path.name for path in folder.iterdir()):
        everything = read_digits(folder, "train")
        train, validation = _parts(everything, (TRAIN_SHARE,), seed)
        told = f"training images split {len(train)} / {len(validation)}, tested on the published test images"
        return RepairSplits(train, validation, test, told)
    return _in_three(test, seed, "the published test images, as the training images are not there")


def read_small_digits() -> Digits:
    """The 1797 digits of 8 x 8 pixels that scikit-learn comes with, enlarged to 28 x 28; needs no network."""
    try:
        bundle = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise DataError(
            "the digits of scikit-learn need that library; pip install scikit-learn, or name a folder with MNIST"
        ) from error
    small = torch.from_numpy(bundle.images).float()[:, None] / 16
    images = F.interpolate(small, (SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)
    return Digits(SMALL_DIGITS.name, images[:, 0].contiguous(), torch.from_numpy(bundle.target).long())


class RepairSource:
    """Training batches: every digit once an epoch, damaged anew each time; (seed, step) gives all draws.

    Frames `[B, 1, 1, 28, 28]` are the damaged digits, the target `[B, 1, 28, 28]` the clean ones.
    """

    def __init__(self, splits: RepairSplits, config: RepairConfig, batch: int, seed: int) -> None:
        self.splits, self.config, self.seed = splits, config, seed
        self._clean = DigitSource(splits.train, "reconstruction", batch, seed)
        self.steps_per_epoch = self._clean.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """Training items of one step."""
        clean = self._clean.batch(step)
        assert clean.labels is not None
        damaged = damage(clean.target, self.config, stream(self.seed, _TRAINING_STREAM, step))
        return repair_batch(clean.target, damaged.images, clean.labels, self.config)

    def validation(self, size: int = 1000) -> list[Batch]:
        """The validation digits with damage that is the same every time, in batches of `size`."""
        return fixed_batches(self.splits.validation, self.config, size)

    def describe(self) -> dict[str, Any]:
        """What a weights file should record of the data."""
        train, validation, test, told = self.splits
        counts = {"images": len(train), "validation": len(validation), "test": len(test)}
        damage = {"split": told, "damage": str(self.config), "target": self.config.target}
        return {"name": train.name, **counts, **damage, "sha256": train.sha256}


def fixed_batches(digits: Digits, config: RepairConfig, size: int = 1000, seed: int = 0) -> list[Batch]:
    """Digits in batches of `size` with fixed damage."""
    batches = []
    for start in range(0, len(digits), size):
        clean = digits.images[start : start + size, None]
        damaged = fixed_damage(clean, config, seed, start).images
        batches.append(repair_batch(clean, damaged, digits.labels[start : start + size], config))
    return batches


def open_repair(
    path: Path, traits: ModelTraits, config: RepairConfig, batch: int, seed: int, device: torch.device
) -> RepairSource:
    """Open the damaged digits of a folder; `ConfigError` for a network that is made for something else."""
    if (traits.tile, traits.in_channels, traits.out_channels, traits.max_frames) != (SIDE_PX, 1, 1, 1):
        raise ConfigError(
            f"the repair of digits needs a network that reads one gray frame of {SIDE_PX} x {SIDE_PX} pixels, and this "
            f"one reads {traits.max_frames} of {traits.in_channels} channels and {traits.tile} pixels; use repair-net"
        )
    if traits.posterior_reads != "frames":
        raise ConfigError("the repair of digits needs a network whose posterior reads the damaged one; use repair-net")
    train, validation, test, told = split_digits(path, config.split_seed)
    train, validation, test = (each.to(device) for each in (train.first(config.limit or len(train)), validation, test))
    return RepairSource(RepairSplits(train, validation, test, told), config, batch, seed)


def _in_three(digits: Digits, seed: int, told: str) -> RepairSplits:
    train, validation, test = _parts(digits, (TRAIN_SHARE, (1 - TRAIN_SHARE) / 2), seed)
    return RepairSplits(train, validation, test, f"{told}, split {len(train)} / {len(validation)} / {len(test)}")


def _parts(digits: Digits, shares: tuple[float, ...], seed: int) -> list[Digits]:
    """Split at random into parts of these shares, and the rest."""
    order = torch.randperm(len(digits), generator=stream(seed, _SPLIT_STREAM))
    sizes = [round(share * len(digits)) for share in shares]
    parts = torch.split(order, [*sizes, len(digits) - sum(sizes)])
    if min(map(len, parts)) < 1:
        raise DataError(f"{digits.name} has {len(digits)} images, too few to be split into {len(parts)} parts")
    return [Digits(digits.name, digits.images[part], digits.labels[part]) for part in parts]
