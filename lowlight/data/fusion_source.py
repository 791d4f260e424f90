"""Batches of pictures with several incomplete frames of each: what the sets of the FusionVAE paper share.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), sections 5.1 to 5.3: one number of frames K ~ U{0, ..., 3} for
a whole training batch; validation has K = 0, 1, 2 and 3 apart, with frames from a fixed seed.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError, UsageError
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.draws import EpochOrder, stream

FIXED_SEED = 42
FIXED_BLOCK = 100  # pictures whose frames are drawn together, so that they do not depend on how a set is cut
# So that no two kinds of draws share a seed, and a run of any seed none with the fixed frames.
_ORDER_STREAM, _COUNT_STREAM, _FRAME_STREAM, _TRAINING_ORDER_STREAM, _TRAINING_FRAME_STREAM = 31, 32, 33, 34, 35


class FusionSet(Protocol):
    """Pictures of one size, and how incomplete frames of them are made."""

    name: str
    shape: tuple[int, int, int]  # channels, height and width

    def __len__(self) -> int: ...

    def hashes(self) -> dict[str, str]:
        """What tells the pictures from others: `sha256` of the pictures, or `files_sha256` of names and sizes."""
        ...

    def targets(self, indices: Tensor) -> Tensor:
        """Pictures `[B, C, h, w]`, float32 in [0, 1], on the CPU."""
        ...

    def augment(self, targets: Tensor, generator: Generator) -> Tensor:
        """Pictures as training sees them, drawn on the device of both arguments."""
        ...

    def frames(self, targets: Tensor, count: int, generator: Generator) -> Tensor:
        """Incomplete frames `[B, K, C, h, w]` in [0, 1], drawn on the device of both arguments."""
        ...


class FusionSets:
    """What trains, and what validates; each is read when it is first asked for."""

    def __init__(self, read_training: Callable[[], FusionSet], read_validation: Callable[[], FusionSet]) -> None:
        self._read_training, self._read_validation = read_training, read_validation

    @cached_property
    def training(self) -> FusionSet:
        """The pictures that train."""
        return self._read_training()

    @cached_property
    def validation(self) -> FusionSet:
        """The pictures that validate."""
        return self._read_validation()


class FixedFrames:
    """A set whose pictures always have the same frames: what validates.

    The pictures come in a fixed order that is not that of the files, so that the first few stand for all. A picture
    has the same frames whatever else is asked for, and on every machine; of fewer frames it has the first.
    """

    def __init__(
        self, pictures: FusionSet, max_frames: int, device: torch.device | None = None, limit: int | None = None
    ) -> None:
        self.pictures, self.max_frames = pictures, max_frames
        self.device = device or torch.device("cpu")
        self._order = torch.randperm(len(pictures), generator=stream(FIXED_SEED, _ORDER_STREAM))
        self._count = len(pictures) if limit is None else min(limit, len(pictures))

    def __len__(self) -> int:
        return self._count

    def validation_batch(self, first: int, count: int, frames: int) -> Batch:
        """Give items `first` to `first + count` with `frames` frames each, on this object's device."""
        if not 0 <= frames <= self.max_frames:
            raise UsageError(f"{frames} frames were asked for; this set has 0 to {self.max_frames} frames of a picture")
        if not 0 <= first < first + count <= len(self):
            raise UsageError(f"items {first} to {first + count} were asked for; this set has {len(self)} pictures")
        last = first + count
        targets, shown = [], []
        for block in range(first // FIXED_BLOCK, -(-last // FIXED_BLOCK)):
            start = block * FIXED_BLOCK
            target = self.pictures.targets(self._order[start : start + FIXED_BLOCK])
            drawn = self.pictures.frames(target, self.max_frames, stream(FIXED_SEED, _FRAME_STREAM, block))
            rows = slice(max(first - start, 0), last - start)
            targets.append(target[rows])
            shown.append(drawn[rows, :frames])
        return as_fusion_batch(torch.cat(shown).to(self.device), torch.cat(targets).to(self.device))


class FusionSource:
    """Training batches of a set, and beside them the set that validates.

    A batch depends on (seed, step) and the kind of device alone; K on (seed, step) alone.
    """

    def __init__(
        self, sets: FusionSets, max_frames: int, batch: int, seed: int, device: torch.device | None = None
    ) -> None:
        training = sets.training
        self.sets, self.training, self.max_frames, self.seed = sets, training, max_frames, seed
        self.device = device or torch.device("cpu")
        self._order = EpochOrder(len(training), batch, seed, _TRAINING_ORDER_STREAM, noun="pictures")
        self.steps_per_epoch = self._order.steps

    def frame_count(self, step: int) -> int:
        """K of a step's batch: uniform in {0, ..., max_frames}."""
        generator = stream(self.seed, _COUNT_STREAM, step)
        return int(torch.randint(self.max_frames + 1, (1,), generator=generator))

    def batch(self, step: int) -> Batch:
        """Training items of one step, on the source's device."""
        chosen = self._order.chosen(step)
        generator = Generator(self.device).manual_seed(stream(self.seed, _TRAINING_FRAME_STREAM, step).initial_seed())
        target = self.training.augment(self.training.targets(chosen).to(self.device), generator)
        return as_fusion_batch(self.training.frames(target, self.frame_count(step), generator), target)

    def describe(self) -> dict[str, Any]:
        """What a weights file should record of the data."""
        told = {"name": self.training.name, "images": len(self.training), "max_frames": self.max_frames}
        return {**told, **self._hashes}

    @cached_property
    def validation(self) -> FixedFrames:
        """The pictures that validate, with their fixed frames."""
        return FixedFrames(self.sets.validation, self.max_frames, self.device)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return self.training.hashes()


def as_fusion_batch(frames: Tensor, target: Tensor) -> Batch:
    """Frames `[B, K, C, h, w]` and targets `[B, C, h, w]`, neither of which was ever dark: all ratios are 1."""
    return Batch(frames, target, frames.new_ones(frames.shape[:2]))


def check_frame_count(max_frames: int) -> None:
    """Refuse a negative number of frames, with a `ConfigError`."""
    if max_frames < 0:
        raise ConfigError(f"max_frames is {max_frames}; expected 0 or more")


def check_traits(traits: ModelTraits, shape: tuple[int, int, int], name: str) -> None:
    """Refuse a network that does not read and give pictures of a set's shape, with a `ConfigError`."""
    channels, side, _ = shape
    if traits.kind != "image":
        raise ConfigError(f"{name} trains networks of finished pictures, and this one reads packed RAW")
    found = (traits.in_channels, traits.out_channels, traits.tile)
    if found != (channels, channels, side):
        raise ConfigError(
            f"{name} has pictures of {side} x {side} with {channels} channels; this network takes "
            f"{traits.tile} x {traits.tile} with {traits.in_channels}, and gives {traits.out_channels}"
        )
