"""Training on real pairs: windows of dark frames and of their truths, flipped alike.

A patch is the thesis': a scene, one of its dark frames, a uniform corner, three coin flips. Networks of sets get more
frames of the same burst, cut and flipped alike. Every item is a pure function of the seed, the step and its place in
the batch.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.errors import ConfigError, DataError
from lowlight.core.photo import RGGB
from lowlight.core.restoration import Batch, ModelTraits
from lowlight.data.batches import as_batch
from lowlight.data.bursts import check_frames, check_zero_frame_prob, frame_count, sometimes_without_frames
from lowlight.data.cache import FrameRecord, is_cache, npy_bytes, open_cache
from lowlight.data.pair_stores import MemoryPairs, PairStore
from lowlight.data.sid import Burst, burst_of, choose_rows, open_pairs, read_exclude_file
from lowlight.data.windows import Flips, Planes, mosaic_window, packed_window
from lowlight.ops.color import apply_matrix, decode, encode, luma
from lowlight.ops.dark_srgb import dark_srgb
from lowlight.raw.bayer import packed_size
from lowlight.raw.levels import named_levels

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
    frames: tuple[int, int] = (1, 1)  # of a burst, uniform, one number for a whole batch; wants burst "any"
    zero_frame_prob: float = 0.0  # of batches without any frame, for networks of sets
    levels: str = ""  # pinned black and white, such as sony-sid; empty: the files' own, or the cache's

    def __post_init__(self) -> None:
        check_frames(self.frames)
        check_zero_frame_prob(self.zero_frame_prob)


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
        _check_traits(traits, config)
        if traits.upscale == 2 and store.truth_size != "full":
            raise ConfigError("a network that gives full size needs full-size truths; make the cache with --truth full")
        self.store, self.traits, self.config = store, traits, config
        self.batch_size, self.seed = batch, seed
        self.device = device or torch.device("cpu")
        scenes: dict[tuple[str, str], list[int]] = {}
        bursts: dict[str, list[int]] = {}
        for index, row in enumerate(store.rows):
            # Without a scene the bright file stands for it, whose name may be there again in another folder.
            name = (row.scene, "") if row.scene else (row.bright.name, str(row.bright))
            scenes.setdefault(name, []).append(index)
            bursts.setdefault(burst_of(row), []).append(index)
        self._scenes = [scenes[name] for name in sorted(scenes)]
        self._bursts = bursts
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
        frames = frame_count(self.config.frames, self.seed, step)
        items = [self._item(number, frames) for number in range(first, first + self.batch_size)]
        packed = torch.from_numpy(np.stack([item.packed for item in items])).to(self.device)
        truth = torch.from_numpy(np.stack([item.truth for item in items])).to(self.device)
        records = [self.store.record(item.indices[0]) for item in items]
        ratio = torch.tensor([[self.store.ratio(i) for i in item.indices] for item in items], device=self.device)
        gains = torch.tensor([record.outline().wb_gains for record in records], device=self.device)
        matrix = torch.from_numpy(np.stack([_matrix(record) for record in records])).to(self.device)
        target = self._target(truth, matrix)
        if self.config.task == "srgb":
            how = self.config.srgb_amplify
            dark = [dark_srgb(packed[:, k], ratio[:, k], gains, matrix, how) for k in range(frames)]
            made = Batch(torch.stack(dark, 1), target, ratio)
        else:
            made = as_batch(packed, ratio, gains, matrix, target, self.traits)
        return sometimes_without_frames(made, self.config.zero_frame_prob, self.seed, step)

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

    def _item(self, number: int, count: int) -> "_Item":
        """Cut item `number` of the run: the patch of one scene, from so many of its frames."""
        epoch, place = divmod(number, self.scene_count)
        frames = self._scenes[self._order_of(epoch)[place]]
        rng = np.random.default_rng((self.seed, 1, number))
        index = frames[int(rng.integers(len(frames)))]
        flips = Flips(*(bool(coin) for coin in rng.integers(2, size=3)))
        indices = (index, *self._others(index, count - 1, number))
        # Every frame is cut with the same numbers, and so in the same place.
        cuts = [self._cut(each, index, flips, copy.deepcopy(rng)) for each in indices]
        return _Item(indices, np.stack([packed for packed, _ in cuts]), cuts[0][1])

    def _others(self, index: int, count: int, number: int) -> tuple[int, ...]:
        """Draw more frames of the burst of a frame; one comes twice only where there are too few."""
        if not count:
            return ()
        burst = self._bursts[burst_of(self.store.rows[index])]
        rest = [other for other in burst if other != index]
        rng = np.random.default_rng((self.seed, 3, number))
        drawn = [*rng.permutation(rest)[:count], *rng.choice(burst, max(count - len(rest), 0))]
        return tuple(int(other) for other in drawn)

    def _cut(self, index: int, first: int, flips: Flips, rng: np.random.Generator) -> tuple[Planes, Planes]:
        stored, truth, tile = self.store.frame(index), self.store.truth(first), self.traits.tile
        if stored.shape != self.store.frame(first).shape:
            dark, other = (self.store.rows[i].dark.name for i in (index, first))
            raise DataError(f"{dark} and {other} are of one burst but differ in size; give them scenes of their own")
        if self.traits.upscale == 2:
            return mosaic_window(stored, truth, tile, flips, rng)
        return packed_window(stored, truth, 2 if self.store.truth_size == "full" else 1, tile, flips, rng)

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.scene_count)
            self._order = (epoch, order)
        return self._order[1]


@dataclass(frozen=True, eq=False)
class _Item:
    indices: tuple[int, ...]
    packed: npt.NDArray[np.float32]  # [K, 4, t, t]
    truth: npt.NDArray[np.float32]  # [3, u*t, u*t]


def open_real_pairs(
    path: Path, traits: ModelTraits, config: RealPairsConfig, batch: int, seed: int, device: torch.device
) -> RealPairs:
    """Open a cache, or a manifest or folder of pairs small enough to be decoded into memory.

    Raises `DataError` where nothing is chosen, a file is missing or the decoded pairs would take more than 2 GiB.
    """
    exclude = read_exclude_file(config.exclude) if config.exclude else ()
    split = config.split or None
    store: PairStore
    if is_cache(path):
        cache = open_cache(path)
        if config.levels not in ("", cache.index.levels):
            raise ConfigError(
                f"data.options.levels is {config.levels!r} and the cache {path} was made with "
                f"{cache.index.levels or 'those of the files'!r}; make it with --levels {config.levels}"
            )
        store = cache.only(choose_rows(cache.rows, path, split, burst=config.burst, exclude=exclude))
    else:
        rows = open_pairs(path, split, burst=config.burst, exclude=exclude)
        store = MemoryPairs(rows, "full" if traits.upscale == 2 else "half", named_levels(config.levels))
        forecast_bytes = _forecast_bytes(store)
        if forecast_bytes > IN_MEMORY_BYTES:
            raise DataError(
                f"the {len(rows)} pairs of {path} would take about {forecast_bytes / 2**30:.1f} GiB of memory; decode "
                f"them once with `lowlight cache {path} CACHE` and train from that folder"
            )
    return RealPairs(store, traits, config, batch, seed, device)


def _forecast_bytes(store: MemoryPairs) -> int:
    """Estimate what decoding all takes, as if every frame had the size of the first."""
    from lowlight.raw.render import visible_size

    height, width = packed_size(visible_size(store.rows[0].dark), RGGB)
    truths = npy_bytes((height, width, 3)) * (4 if store.truth_size == "full" else 1)
    frames = npy_bytes((height, width, 4))
    return len({row.dark for row in store.rows}) * frames + len({row.bright for row in store.rows}) * truths


def _check_traits(traits: ModelTraits, config: RealPairsConfig) -> None:
    check_frames(config.frames, traits)
    check_zero_frame_prob(config.zero_frame_prob, traits)
    task = config.task
    needed = CHANNELS[task]
    if (traits.in_channels, traits.out_channels) != needed:
        raise ConfigError(
            f"task {task} needs a network with {needed[0]} channels in and {needed[1]} out, this one has "
            f"{traits.in_channels} and {traits.out_channels}; set model.options.in_channels and out_channels"
        )
    if traits.output_colour != "srgb" and task == "srgb":
        raise ConfigError("task srgb gives sRGB pictures; set model.options.output_colour to srgb")
    if task == "srgb" and config.srgb_amplify != traits.amplify:
        raise ConfigError(
            f"data.options.srgb_amplify is {config.srgb_amplify!r} and model.options.amplify {traits.amplify!r}; "
            "set both alike, so that the weights are used as they were trained"
        )


def _matrix(record: FrameRecord) -> npt.NDArray[np.float32]:
    """Give camera colour to sRGB; colours of an unknown camera are taken for sRGB's."""
    return np.eye(3, dtype=np.float32) if record.matrix is None else record.matrix
