"""Training on real pairs: windows of dark frames and of their truths, flipped alike.

A patch is the thesis': a scene, one of its dark frames, a uniform corner, three coin flips. Where the picture has
packed size the packed planes are flipped, as the thesis does. Where it has the sensor's size a flipped plane would
lie beside its truth by a pixel, so the mosaic itself is flipped and cut again from a red pixel on.
Every item is a pure function of the seed, the step and its place in the batch.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.photo import RGGB
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.batches import as_batch
from lowlight.data.cache import (
    FrameRecord,
    PairCache,
    digest_of,
    frame_record,
    is_cache,
    npy_bytes,
    open_cache,
    source_file,
)
from lowlight.data.decoding import (
    SCALE,
    Pixels,
    TruthSize,
    decode_frame,
    decode_truth,
    dequantise,
    pair_ratio,
    unpack,
)
from lowlight.data.pairs import PairRow
from lowlight.data.sid import Burst, choose_rows, open_pairs, read_exclude_file
from lowlight.ops.color import apply_matrix, decode, encode, luma
from lowlight.ops.exposure import packed_to_rgb
from lowlight.raw.bayer import plane_offsets

logger = logging.getLogger(__name__)

Task = Literal["main", "gray", "srgb"]
CHANNELS: dict[Task, tuple[int, int]] = {"main": (4, 3), "gray": (4, 1), "srgb": (3, 3)}
IN_MEMORY_BYTES = 2 << 30  # more than this is not decoded into memory: a cache is asked for


@dataclass(frozen=True, kw_only=True)
class RealPairsConfig:
    """Which pairs train, and for which task (thesis: main, gray = task 1, srgb = task 2)."""

    task: Task = "main"
    split: str = "train"  # train, val, test; empty: all pairs
    burst: Burst = "first"  # first: only frames with index 0 in their burst, as the set's authors do; any: all
    exclude: Path | None = None  # file of scenes, files or pairs to leave out, one a line
    srgb_amplify: Literal["linear", "encoded"] = "linear"  # where task srgb amplifies: in light, or as stored


class PairStore(Protocol):
    """Where a training reads windows of frames and truths from."""

    truth_size: TruthSize

    @property
    def rows(self) -> Sequence[PairRow]:
        """The pairs; their position is the index the other methods take."""
        ...

    def record(self, index: int) -> FrameRecord:
        """What is known of the dark frame of a pair."""
        ...

    def ratio(self, index: int) -> float:
        """Give the amplification of a pair."""
        ...

    def frame(self, index: int) -> Pixels:
        """Open the packed dark frame `[h, w, 4]`."""
        ...

    def truth(self, index: int) -> Pixels:
        """Open the truth `[h, w, 3]` or `[2h, 2w, 3]`."""
        ...

    def digest(self) -> str:
        """Hash what the pairs were decoded from into a short text."""
        ...



class RealPairs:
    """Gives batches of windows of real pairs.

    Scenes come in a new random order every epoch, so each trains once an epoch, with one patch. Raises `ConfigError`
    where the network's channels or size do not fit the task or the stored truths.
    """

    def __init__(
        self,
        store: PairStore,
        traits: ModelTraits,
        config: RealPairsConfig,
        batch: int,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        _check_traits(traits, config.task)
        if traits.upscale == 2 and store.truth_size != "full":
            raise ConfigError(
                "a network that gives full size needs full-size truths; make the cache with --truth full"
            )
        self.store, self.traits, self.config = store, traits, config
        self.batch_size, self.seed = batch, seed
        self.device = device or torch.device("cpu")
        scenes: dict[str, list[int]] = {}
        for index, row in enumerate(store.rows):
            scenes.setdefault(row.scene or row.bright.name, []).append(index)
        self._scenes = [scenes[name] for name in sorted(scenes)]
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    @property
    def scene_count(self) -> int:
        """How many scenes there are: the items of an epoch."""
        return len(self._scenes)

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every scene has trained once, rounded up (thesis: 161 scenes, batch 5, 33 steps)."""
        return -(-self.scene_count // self.batch_size)

    def batch(self, step: int) -> Batch:
        """Make the training items of one step, on the source's device."""
        first = step * self.batch_size
        items = [self._item(number) for number in range(first, first + self.batch_size)]
        packed, truth = (torch.from_numpy(np.stack(arrays)).to(self.device) for arrays in (
            [item.packed for item in items], [item.truth for item in items]
        ))
        records = [self.store.record(item.index) for item in items]
        ratio = torch.tensor([self.store.ratio(item.index) for item in items], device=self.device)
        gains = torch.tensor([record.gains for record in records], device=self.device)
        matrix = torch.from_numpy(np.stack([_matrix(record) for record in records])).to(self.device)
        target = self._target(truth, matrix)
        if self.config.task == "srgb":
            dark = dark_srgb(packed, ratio, gains, matrix, self.config.srgb_amplify)
            return Batch(dark[:, None], target, ratio[:, None])
        return as_batch(packed, ratio, gains, matrix, target, self.traits)

    def describe(self) -> dict[str, Any]:
        """Give the name of the source, the number of dark frames and scenes, and a hash of their files."""
        return {
            "name": "pairs",
            "task": self.config.task,
            "split": self.config.split,
            "photos": len(self.store.rows),
            "scenes": self.scene_count,
            "pair_hash": self.store.digest(),
        }

    def _target(self, truth: Tensor, camera_to_srgb: Tensor) -> Tensor:
        if self.config.task == "gray":
            return luma(truth)
        if self.traits.output_colour == "srgb":
            return truth
        # What the sRGB gamut clipped away stays lost: the target is the camera colour that develops to the truth.
        return encode(apply_matrix(decode(truth), torch.linalg.inv(camera_to_srgb)).clamp_(0, 1))

    def _item(self, number: int) -> "_Item":
        """Cut item `number` of the run: the patch of one scene."""
        epoch, place = divmod(number, self.scene_count)
        frames = self._scenes[self._order_of(epoch)[place]]
        rng = np.random.default_rng((self.seed, 1, number))
        index = frames[int(rng.integers(len(frames)))]
        flips = Flips(*(bool(coin) for coin in rng.integers(2, size=3)))
        stored, truth = self.store.frame(index), self.store.truth(index)
        if self.traits.upscale == 2:
            packed, target = _mosaic_window(stored, truth, self.traits.tile, flips, rng)
        else:
            packed, target = _packed_window(stored, truth, self.traits.tile, flips, rng)
        return _Item(index, packed, target)

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.scene_count)
            self._order = (epoch, order)
        return self._order[1]


@dataclass(frozen=True)
class Flips:
    """Three coins of a patch, applied in this order."""

    vertical: bool
    horizontal: bool
    transpose: bool

    def apply(self, pixels: Pixels) -> Pixels:
        """Flip an array `[H, W, ...]`."""
        if self.vertical:
            pixels = pixels[::-1]
        if self.horizontal:
            pixels = pixels[:, ::-1]
        return pixels.swapaxes(0, 1) if self.transpose else pixels


@dataclass(frozen=True, eq=False)
class _Item:
    index: int
    packed: npt.NDArray[np.float32]  # [4, t, t]
    truth: npt.NDArray[np.float32]  # [3, u*t, u*t]


def _packed_window(
    stored: Pixels, truth: Pixels, tile: int, flips: Flips, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cut a window at packed size; a truth of full size is averaged to it as encoded values."""
    scale = 2 if truth.shape[0] >= 2 * stored.shape[0] - 1 and truth.shape[0] > stored.shape[0] else 1
    limit = [min(a, b // scale) for a, b in zip(stored.shape, truth.shape[:2], strict=False)]
    (top, height), (left, width) = (_span(size, tile, rng) for size in limit)
    dark = stored[top : top + height, left : left + width]
    bright = truth[scale * top : scale * (top + height), scale * left : scale * (left + width)]
    picture = bright.astype(np.float32) / np.float32(SCALE)
    if scale == 2:
        picture = (picture[0::2, 0::2] + picture[1::2, 0::2] + picture[0::2, 1::2] + picture[1::2, 1::2]) / 4
    dark, picture = (flips.apply(mirror_to(part, tile, tile)) for part in (dark, picture))
    return dequantise(dark), np.ascontiguousarray(picture.transpose(2, 0, 1))


def _mosaic_window(
    stored: Pixels, truth: Pixels, tile: int, flips: Flips, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cut a window at the sensor's size.

    A mirrored axis of an RGGB mosaic begins with green: one pixel is dropped there, so that the first is red again,
    and the window needs one more at its far end. Transposing keeps red in the corner and swaps the greens.
    """
    spare = (int(flips.vertical), int(flips.horizontal))
    (top, height), (left, width) = (
        _span(size, tile + extra, rng) for size, extra in zip(stored.shape[:2], spare, strict=True)
    )
    mosaic = unpack(np.ascontiguousarray(stored[top : top + height, left : left + width]))
    bright = truth[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
    # Mirroring about a pixel keeps the colours in step, as it does at the border of a frame.
    full = tuple(2 * (tile + extra) for extra in spare)
    mosaic, bright = (mirror_to(part, *full) for part in (mosaic, bright))
    inside = tuple(slice(extra, extra + 2 * tile) for extra in spare)
    mosaic, bright = flips.apply(mosaic[inside]), flips.apply(bright[inside])
    planes = np.stack([mosaic[row::2, col::2] for row, col in plane_offsets(RGGB)], axis=-1)
    return dequantise(planes), dequantise(bright)


def _span(size: int, wanted: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw where a window begins, both ends included, and say how long it is: shorter on a small frame."""
    if size <= wanted:
        return 0, size
    return int(rng.integers(size - wanted + 1)), wanted


def mirror_to[T: np.generic](pixels: npt.NDArray[T], height: int, width: int) -> npt.NDArray[T]:
    """Mirror `[H, W, ...]` about its last row and column up to a size, as often as that takes."""
    below, right = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if not (below or right):
        return pixels
    return np.pad(pixels, ((0, below), (0, right), *((0, 0),) * (pixels.ndim - 2)), mode="reflect")


def dark_srgb(
    packed: Tensor, ratio: Tensor, gains: Tensor, camera_to_srgb: Tensor, how: Literal["linear", "encoded"]
) -> Tensor:
    """Develop dark packed frames `[B, 4, h, w]` to amplified sRGB `[B, 3, h, w]` in LibRaw's curve, in [0, 1].

    `linear` multiplies light by `ratio [B]`, as LibRaw's own brightening does; `encoded` multiplies encoded values.
    `gains [B, 4]` have minimum 1; `camera_to_srgb [B, 3, 3]`. Source: thesis, task 2.
    """
    balanced = (packed * gains[:, :, None, None]).clamp_(max=1)
    rgb = apply_matrix(packed_to_rgb(balanced), camera_to_srgb).clamp_(0, 1)
    amount = ratio[:, None, None, None]
    if how == "linear":
        return encode((rgb * amount).clamp_(max=1))
    return (encode(rgb) * amount).clamp_(max=1)


class MemoryPairs:
    """A store that decodes each file when it is first asked for, and keeps it."""

    def __init__(self, rows: Sequence[PairRow], truth_size: TruthSize) -> None:
        self.rows, self.truth_size = list(rows), truth_size
        self._frames: dict[Path, tuple[Pixels, FrameRecord, Any]] = {}
        self._truths: dict[Path, tuple[Pixels, float | None]] = {}
        for row in self.rows:
            for file in (row.dark, row.bright):
                if not file.is_file():
                    raise DataError(f"{file} is named as part of a pair but does not exist; exclude it or bring it")

    def record(self, index: int) -> FrameRecord:
        """What is known of the dark frame of a pair."""
        return self._decoded(index)[1]

    def ratio(self, index: int) -> float:
        """Give the amplification of a pair."""
        self.truth(index)
        row = self.rows[index]
        return pair_ratio(row, self._decoded(index)[2], self._truths[row.bright][1])

    def frame(self, index: int) -> Pixels:
        """Give the packed dark frame `[h, w, 4]`."""
        return self._decoded(index)[0]

    def truth(self, index: int) -> Pixels:
        """Give the truth `[h, w, 3]` or `[2h, 2w, 3]`."""
        path = self.rows[index].bright
        if path not in self._truths:
            self._truths[path] = decode_truth(path, self._decoded(index)[2], self.truth_size)
        return self._truths[path][0]

    def digest(self) -> str:
        """Hash what the pairs are decoded from into a short text."""
        files = {file for row in self.rows for file in (row.dark, row.bright)}
        hashes = {file: source_file(file, file.name).sha256 for file in files}
        return digest_of((hashes[row.dark], hashes[row.bright]) for row in self.rows)
