"""Looking for pairs that are none: moved, of different scenes, or labelled with another exposure."""

import json
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import log2
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from lowlight.core.atomic import write_text
from lowlight.core.errors import LowlightError, UsageError
from lowlight.core.photo import RawFrame
from lowlight.data.alignment import Alignment, align, light_blocks, measured_gain, truth_light
from lowlight.data.cache import INDEX, PairCache, is_cache, open_cache
from lowlight.data.pairs import PairRow, exposure_ratio, files_of, fit_truth, pair_ratio, read_manifest, read_truth
from lowlight.data.sid import Burst, choose_rows, open_pairs, parse_name
from lowlight.ops.color import LUMA, apply_matrix
from lowlight.ops.exposure import packed_to_rgb
from lowlight.ops.registration import MIN_CONFIDENCE, block_side
from lowlight.ops.resize import mean_of_blocks
from lowlight.raw.bayer import in_blocks, pack
from lowlight.raw.exif import read_metadata
from lowlight.raw.read import read_raw

Pixels = npt.NDArray[np.uint16]
Verdict = Literal["ok", "unreadable", "different", "misaligned", "levels", "exposure"]
Progress = Callable[[int, int], None]  # pairs done, pairs in all

FLAT_CORRELATION = 0.8  # of coarse blocks: enough to take pictures without detail for the same scene
COARSE = 4  # blocks along a coarse block
EXCLUDE_TITLE = "# Pairs to leave out: one scene, file or pair (dark and bright file) a line."
CLIPPED = 0.9  # of white, encoded: truths above it say nothing about levels


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Which pairs to check and how strictly."""

    split: str | None = None
    burst: Burst = "any"
    exclude: Collection[str] = ()
    max_shift_px: float = 1.0  # packed pixels
    max_level_ev: float = 0.5  # between the claimed and the measured ratio
    max_exposure_ev: float = 0.25  # between the claimed ratio and the exposure times
    jobs: int = 2


@dataclass(frozen=True, kw_only=True)
class PairCheck:
    """What was found out about a pair. Numbers that could not be measured are None."""

    dark: str
    bright: str
    scene: str
    verdict: Verdict = "ok"
    reasons: tuple[str, ...] = ()
    ratio: float | None = None  # as claimed
    measured_ratio: float | None = None  # from the light in both pictures
    exposure_ratio: float | None = None  # from the exposure times in the files
    shift_px: tuple[float, float] | None = None  # of the truth, down and right, packed pixels
    peak: float | None = None
    correlation: float | None = None


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A pair and what its files say of their exposure."""

    frame: RawFrame
    truth: Pixels
    ratio: float
    dark_s: float | None
    bright_s: float | None


Task = tuple[PairRow, Callable[[], _Loaded]]


def check_pairs(data: Path, options: CheckOptions, progress: Progress | None = None) -> list[PairCheck]:
    """Check every pair of a manifest, a folder with SID's names or a cache; one row a pair, in their order.

    A pair that cannot be read gets the verdict `unreadable`.
    """
    tasks = list(_tasks(data, options))
    rows = []
    with ThreadPoolExecutor(max(options.jobs, 1)) as pool:
        try:
            for row in pool.map(partial(_check, options=options), tasks):
                rows.append(row)
                if progress:
                    progress(len(rows), len(tasks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return rows


def files_read(data: Path, output: Path) -> list[Path]:
    """What checking reads and `output` must not replace; of a folder all but an earlier exclude file."""
    if data.is_file():
        return [data, *files_of(read_manifest(data))]
    return [] if _is_exclude_file(output) else [data, data / INDEX]


def judge(named: PairCheck, frame: RawFrame, truth: Pixels, ratio: float, options: CheckOptions) -> PairCheck:
    """Compare the pictures of a pair: their scene, place and level. `truth [h, w, 3]` has about packed size."""
    dark = _dark_light(frame) * ratio
    height, width = (min(a, b) for a, b in zip(dark.shape, truth.shape[:2], strict=True))
    dark, truth = dark[:height, :width], truth[:height, :width]
    block = block_side(height, width)
    bright = truth_light(truth)
    found = align(light_blocks(dark, block), light_blocks(bright, block), block)
    clipped = torch.from_numpy((truth.max(axis=2) > CLIPPED * 65535).astype(np.float32))
    moved = found.shift_px if found.peak >= MIN_CONFIDENCE else (0.0, 0.0)
    planes = (dark, *(_moved_back(plane, moved) for plane in (bright, clipped)))
    coarse = [light_blocks(plane, COARSE * block) for plane in planes]
    usable = coarse[2] == 0
    gain = measured_gain(coarse[0][usable], coarse[1][usable])
    check = replace(
        named,
        ratio=ratio,
        measured_ratio=None if gain is None else round(gain * ratio, 2),
        shift_px=(round(found.shift_px[0], 2), round(found.shift_px[1], 2)),
        peak=round(found.peak, 2),
        correlation=round(found.correlation, 4),
    )
    if found.peak < MIN_CONFIDENCE:
        if _together(coarse[0], coarse[1]) >= FLAT_CORRELATION:
            return _with_level(replace(check, shift_px=None), gain, options)
        reason = "the two files show different scenes, or too little of one to be compared"
        return replace(check, verdict="different", reasons=(reason,), measured_ratio=None, shift_px=None)
    return _with_level(_with_shift(check, found, options), gain, options)


def exclude_text(rows: list[PairCheck]) -> str:
    """Give the lines of an exclude file: the pairs that are not fine, each with its reason as a comment."""
    lines = [EXCLUDE_TITLE]
    lines += [f"{row.dark} {row.bright}  # {'; '.join(row.reasons)}" for row in rows if row.verdict != "ok"]
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"


def write_exclude_file(path: Path, rows: list[PairCheck], *, overwrite: bool = False) -> int:
    """Write the pairs that are not fine to `path`, whole or not at all; returns how many there are."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already and may hold lines of yours; choose another name, or --overwrite")
    write_text(path, exclude_text(rows))
    return sum(row.verdict != "ok" for row in rows)


def _is_exclude_file(path: Path) -> bool:
    title = EXCLUDE_TITLE.encode()
    try:
        with path.open("rb") as file:
            return file.read(len(title)) == title
    except OSError:
        return False


def rows_json(rows: list[PairCheck]) -> str:
    """All rows as a JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False)


def _tasks(data: Path, options: CheckOptions) -> Iterator[Task]:
    """Every pair with a function that reads it."""
    if is_cache(data):
        cache = open_cache(data)
        rows = choose_rows(cache.rows, data, options.split, burst=options.burst, exclude=options.exclude)
        chosen = cache.only(rows)
        for index, row in enumerate(chosen.rows):
            yield row, partial(_from_cache, chosen, index)
        return
    for row in open_pairs(data, options.split, burst=options.burst, exclude=options.exclude):
        yield row, partial(_from_files, row)


def _from_cache(cache: PairCache, index: int) -> _Loaded:
    pair, row = cache.pair(index), cache.rows[index]
    truth = mean_of_blocks(pair.truth) if cache.truth_size == "full" else pair.truth
    return _Loaded(pair.frame, truth, pair.ratio, row.dark_s, row.bright_s)


def _from_files(row: PairRow) -> _Loaded:
    frame = read_raw(row.dark)
    truth, bright_s = read_truth(row.bright)
    truth = fit_truth(truth, frame, row.bright)
    if truth.shape[:2] == frame.size:
        truth = mean_of_blocks(truth)
    ratio = pair_ratio(row, frame, bright_s)
    bright_s = bright_s or read_metadata(row.bright).exposure_s
    return _Loaded(in_blocks(frame), truth, ratio, frame.metadata.exposure_s, bright_s)


def _check(task: Task, options: CheckOptions) -> PairCheck:
    row, read = task
    named = PairCheck(dark=row.dark.name, bright=row.bright.name, scene=row.scene, ratio=row.ratio)
    try:
        loaded = read()
        check = judge(named, loaded.frame, loaded.truth, loaded.ratio, options)
    except LowlightError as error:
        return _with(named, "unreadable", str(error))
    return _with_exposure(check, loaded, options)


def _with_shift(check: PairCheck, found: Alignment, options: CheckOptions) -> PairCheck:
    if found.distance_px <= options.max_shift_px:
        return check
    down, right = found.shift_px
    return _with(check, "misaligned", f"the truth is moved by {down:+.1f} rows and {right:+.1f} columns (packed)")


def _with_level(check: PairCheck, gain: float | None, options: CheckOptions) -> PairCheck:
    if gain is None or abs(log2(gain)) <= options.max_level_ev:
        return check
    assert check.ratio is not None
    return _with(check, "levels", f"the ratio is {check.ratio:g} but the light differs by {gain * check.ratio:.0f}")


def _with_exposure(check: PairCheck, loaded: _Loaded, options: CheckOptions) -> PairCheck:
    """Compare the claimed ratio, the names and the exposure times in the files."""
    for name, file_s in ((check.dark, loaded.dark_s), (check.bright, loaded.bright_s)):
        told = parse_name(name)
        if told and file_s and abs(log2(told.exposure_s / file_s)) > options.max_exposure_ev:
            reason = f"{name} is named for {told.exposure_s:g} s, its file says {file_s:g} s"
            check = _with(check, "exposure", reason)
    if not (loaded.dark_s and loaded.bright_s):
        return check
    ratio = exposure_ratio(loaded.dark_s, loaded.bright_s)
    check = replace(check, exposure_ratio=round(ratio, 2))
    if abs(log2(ratio / loaded.ratio)) > options.max_exposure_ev:
        return _with(check, "exposure", f"the ratio is {loaded.ratio:g}, the exposure times make it {ratio:.3g}")
    return check


def _with(check: PairCheck, verdict: Verdict, reason: str) -> PairCheck:
    """Add a reason; the first verdict that is not ok stays."""
    return replace(check, verdict=verdict if check.verdict == "ok" else check.verdict, reasons=(*check.reasons, reason))


def _dark_light(frame: RawFrame) -> torch.Tensor:
    """Linear luminance `[h, w]` of a dark frame, noise below black kept, so that means over blocks are true."""
    balanced = pack(frame, clip=False) * torch.tensor(frame.wb_gains)[:, None, None]
    rgb = packed_to_rgb(balanced)
    if frame.camera_to_srgb is not None:
        rgb = apply_matrix(rgb, torch.from_numpy(frame.camera_to_srgb))
    return (rgb * torch.tensor(LUMA)[:, None, None]).sum(0)


def _moved_back(plane: torch.Tensor, shift_px: tuple[float, float]) -> torch.Tensor:
    """Undo a shift to the next pixel; what comes in at the border is what went out at the other side."""
    return plane.roll((-round(shift_px[0]), -round(shift_px[1])), (0, 1))


def _together(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    if first.size < 16 or first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
