"""Which pairs an evaluation is about: read, chosen by protocol, split and exclusions, and named by a hash."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lowlight.core.errors import DataError, UsageError
from lowlight.core.hashing import file_sha256
from lowlight.data.pairs import Pair, PairRow, fit_truth, list_sha256, load_pair, pair_hashes, pair_ratio
from lowlight.data.pictures import READERS
from lowlight.data.sid import MISALIGNED_SCENES, burst_of, choose_rows, open_pairs, read_exclude_file
from lowlight.raw.levels import Levels, named_levels
from lowlight.raw.read import read_at_levels
from lowlight.raw.render import render_full_size
from lowlight.workflows.evaluating.protocols import Protocol, Size
from lowlight.workflows.sharding import Shard, shard


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the user asked for beside the protocol. `split` None is every row of a manifest, and test of a folder."""

    split: str | None = None
    exclude: Path | None = None
    include_misaligned: bool = False
    shard: Shard | None = None  # only this part of the pairs that all else leaves
    levels: str = ""  # pinned black and white of the dark frames; empty: the files' own
    frames: int = 1  # of a scene; only scenes with as many are scored, each once


@dataclass(frozen=True)
class PairList:
    """The pairs to score, and what a report says of them; `hashes` are of all shards' pairs, see `pair_hashes`.

    `levels` are the dark frames', where they are not the files' own. `others` are, for each row, the rows of further
    frames of its scene, empty where one frame is scored.
    """

    rows: tuple[PairRow, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    hashes: tuple[str, ...] = ()
    levels: Levels | None = None
    others: tuple[tuple[PairRow, ...], ...] = ()

    @property
    def every_row(self) -> list[PairRow]:
        """The rows of all frames that are read."""
        return [*self.rows, *(row for others in self.others for row in others)]

    def part(self, first: int, step: int) -> "PairList":
        """Every so many pairs, from the first of them on."""
        return replace(self, rows=self.rows[first::step], others=self.others[first::step])

    def load(self, index: int, size: Size) -> Pair:
        """Read a pair, and the further frames of its scene."""
        pair = load_pair_at(self.rows[index], size, self.levels)
        if not self.others:
            return pair
        return replace(pair, others=tuple(read_at_levels(row.dark, self.levels) for row in self.others[index]))


def open_pair_list(path: Path, protocol: Protocol, selection: Selection | None = None) -> PairList:
    """Read a manifest or a folder with SID's names, and keep the pairs that protocol and selection name.

    The facts hold the manifest's hash (None for a folder), `pairs` (their number), `list_sha256` (the hash of the
    scored pairs) and what was left out; of a shard also `shard`, with `pairs` its own and the hash that of all; of
    pinned levels `levels`; where several frames are fused `frames`. Parts are dealt out by scene and name of the dark
    file. Raises `DataError` where nothing is left, `UsageError` where a part is empty or there are no such levels.
    """
    selection = selection or Selection()
    levels = named_levels(selection.levels)
    if selection.include_misaligned and protocol.fixed:
        raise UsageError("This protocol is the one without the misaligned scenes; use --protocol paper to keep them.")
    split = selection.split or ("test" if path.is_dir() else None)
    rows = open_pairs(path, split, burst="first" if protocol.first_frames else "any")
    misaligned = protocol.misaligned or selection.include_misaligned
    listed = read_exclude_file(selection.exclude) if selection.exclude else ()
    exclude = (*listed, *(() if misaligned else MISALIGNED_SCENES))
    chosen = choose_rows(rows, path, exclude=exclude)
    scenes: list[tuple[PairRow, ...]] = [(row,) for row in chosen]
    if selection.frames > 1:
        scenes = _scenes(chosen, selection.frames, path)
    names = [(row.scene, row.dark.name) for scene in scenes for row in scene]
    facts: dict[str, Any] = {
        "manifest": str(path),
        "manifest_sha256": None if path.is_dir() else file_sha256(path),
        "split": split,
        "pairs": len(scenes),
        "list_sha256": list_sha256(names),
        "misaligned_scenes": "included" if misaligned else "excluded",
        "excluded": len(rows) - len(chosen),
    }
    if levels:
        facts["levels"] = selection.levels
    if selection.frames > 1:
        facts |= {"frames": selection.frames, "frames_left_out": len(chosen) - sum(map(len, scenes))}
    if selection.shard is not None:
        every, part = len(scenes), selection.shard
        scenes = shard(scenes, part, key=lambda scene: (scene[0].scene, scene[0].dark.name))
        if not scenes:
            raise UsageError(f"part {part} of {every} pairs is empty; cut them into at most {every} parts")
        facts |= {"pairs": len(scenes), "shard": str(part), "pairs_of_all_shards": every}
    others = tuple(scene[1:] for scene in scenes) if selection.frames > 1 else ()
    return PairList(tuple(scene[0] for scene in scenes), facts, tuple(pair_hashes(names)), levels, others)


def _scenes(rows: Sequence[PairRow], frames: int, path: Path) -> list[tuple[PairRow, ...]]:
    """The first so many rows of every burst that has as many, as they are listed; the first one is the reference."""
    bursts: dict[str, list[PairRow]] = {}
    for row in rows:
        burst = bursts.setdefault(burst_of(row), [])
        if all(row.dark != other.dark for other in burst):
            burst.append(row)
    scenes = [tuple(burst[:frames]) for burst in bursts.values() if len(burst) >= frames]
    if not scenes:
        most = max(map(len, bursts.values()), default=0)
        raise DataError(
            f"no scene of {path} has {frames} dark frames, the most is {most}; rows of one scene have the same bright "
            "file, or names as See-in-the-Dark's"
        )
    return scenes


def load_pair_at(row: PairRow, size: Size, levels: Levels | None = None) -> Pair:
    """Read a pair with its truth at `size`: a bright RAW is rendered at that size, a picture is taken as it is.

    The dark frame has its own `levels` or these. At full size a picture of half the sensor's size raises `UsageError`.
    """
    if size == "full" and not is_picture(row.bright):
        frame = read_at_levels(row.dark, levels)
        truth, bright_s = render_full_size(row.bright)
        truth = fit_truth(truth, frame, row.bright)
        ratio = pair_ratio(row, frame, bright_s)
        return Pair(row.dark.name, row.scene, frame, truth, ratio)
    pair = load_pair(row, levels)
    if size == "full" and pair.truth.shape[:2] != pair.frame.size:
        (height, width), (rows, cols) = pair.truth.shape[:2], pair.frame.size
        raise UsageError(
            f"{row.bright.name} is {width}x{height} but the dark frame is {cols}x{rows}; use --size half, or a truth "
            "of full size"
        )
    return pair


def is_picture(path: Path) -> bool:
    """Whether a bright file is a finished picture, not a RAW."""
    return path.suffix.lower() in READERS
