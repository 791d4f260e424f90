"""Pairs of a dark RAW and its bright picture: the CSV manifest, and pairs ready for scoring."""

import csv
import hashlib
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError
from lowlight.core.photo import RawFrame
from lowlight.data.pictures import READERS, read_picture
from lowlight.ops.exposure import RATIO_RANGE
from lowlight.raw.bayer import packed_size
from lowlight.raw.levels import Levels

PAIR_LIST = ("list_sha256", "pair_hashes")  # what tells the pairs that weights were chosen on; see there
COLUMNS = ("scene", "split", "dark", "bright", "ratio", "iso", "burst_index")
REQUIRED = ("dark", "bright")
_SPLITS = {"validation": "val", "valid": "val", "training": "train"}  # other words for them


@dataclass(frozen=True)
class PairRow:
    """One line of a manifest. `ratio` is None where it must come from the exposure times."""

    dark: Path
    bright: Path
    scene: str = ""
    split: str = ""
    ratio: float | None = None
    iso: float | None = None
    burst_index: int = 0
    dark_s: float | None = None  # exposure times that the names tell
    bright_s: float | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """A dark frame with its truth, uint16 `[H, W, 3]` encoded, at packed or full size, and the ratio between.

    `others` are further dark frames of the scene, of any exposure, where several are to be fused.
    """

    name: str
    scene: str
    frame: RawFrame
    truth: npt.NDArray[np.uint16]
    ratio: float
    others: tuple[RawFrame, ...] = ()


def read_manifest(path: Path) -> list[PairRow]:
    """The rows of a CSV manifest; paths are relative to it. Columns: scene, split, dark, bright, ratio, iso,
    burst_index, of which dark and bright must be there; others are left aside, and the case of a name does not matter.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
            if len(set(columns)) < len(columns):
                twice = next(name for name in columns if columns.count(name) > 1)
                raise DataError(f"{path} has more than one column {twice!r}; leave one of them")
            missing = [name for name in REQUIRED if name not in columns]
            if missing:
                raise DataError(f"{path} has no column {missing[0]!r}; expected a CSV with {', '.join(COLUMNS)}")
            rows = [_row(path, reader.line_num, values) for values in reader]
    except OSError as error:
        raise DataError(f"cannot read the manifest {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV text ({error}); expected columns {', '.join(COLUMNS)}") from error
    if not rows:
        raise DataError(f"the manifest {path} has no rows; expected one pair a line")
    return rows


def files_of(rows: Iterable[PairRow]) -> list[Path]:
    """The dark and bright files of rows, in their order."""
    return [file for row in rows for file in (row.dark, row.bright)]


def _row(path: Path, line: int, values: dict[str, str | None]) -> PairRow:
    def number(key: str) -> float | None:
        text = (values.get(key) or "").strip()
        with suppress(ValueError):
            value = float(text) if text else None
            if value is None or math.isfinite(value):
                return value
        raise DataError(f"{path}, line {line}: {key} is {text!r}; expected a number or nothing")

    named = {key: (values.get(key) or "").strip() for key in COLUMNS}
    for key in REQUIRED:
        if not named[key]:
            raise DataError(f"{path}, line {line}: {key} is empty; expected a file's path")
    ratio = number("ratio")
    if ratio is not None and not ratio > 0:
        raise DataError(f"{path}, line {line}: ratio is {ratio:g}; expected a positive number")
    burst_index, iso = number("burst_index") or 0.0, number("iso")
    if not burst_index.is_integer():
        raise DataError(f"{path}, line {line}: burst_index is {burst_index:g}; expected a whole number or nothing")
    return PairRow(
        dark=path.parent / named["dark"],
        bright=path.parent / named["bright"],
        scene=named["scene"],
        split=split_name(named["split"]),
        ratio=ratio,
        iso=iso if iso and iso > 0 else None,  # 0 is what many write for unknown
        burst_index=int(burst_index),
    )


def split_name(text: str) -> str:
    """Give the one word that is used here for a split, such as `val` for `Validation`."""
    word = text.strip().lower()
    return _SPLITS.get(word, word)


def validation_rows(rows: Sequence[PairRow]) -> list[PairRow]:
    """Those of the validation split; without one all that do not train, and all where every row does."""
    validating = [row for row in rows if row.split == "val"]
    return validating or [row for row in rows if row.split != "train"] or list(rows)


def load_pair(row: PairRow, levels: Levels | None = None) -> Pair:
    """Read both files of a row, the dark one with its own `levels` or these.

    A bright RAW is rendered at half size, as the thesis' ground truths are.
    """
    from lowlight.raw.read import read_at_levels

    frame = read_at_levels(row.dark, levels)
    truth, bright_s = read_truth(row.bright)
    ratio = pair_ratio(row, frame, bright_s)
    return Pair(row.dark.name, row.scene, frame, fit_truth(truth, frame, row.bright), ratio)


def read_truth(path: Path) -> tuple[npt.NDArray[np.uint16], float | None]:
    """Read a bright picture, uint16 `[H, W, 3]` encoded, and its exposure time in seconds where a RAW tells it.

    A RAW is rendered at half size; a finished picture has the size it is stored in.
    """
    if path.suffix.lower() not in READERS:
        from lowlight.raw.render import render_half_size

        return render_half_size(path)
    # A mosaic is not turned either, whatever its tags say.
    truth = read_picture(path, upright=False)
    if truth.shape[2] != 3:
        raise DataError(f"{path} has {truth.shape[2]} channels; expected a colour picture")
    return truth, None


def pair_ratio(row: PairRow, frame: RawFrame, bright_s: float | None) -> float:
    """Give a row's ratio, or the one of the exposure times where it has none."""
    if row.ratio is not None:
        return row.ratio
    dark_s = frame.metadata.exposure_s
    if not dark_s or not bright_s:
        raise DataError(
            f"{row.dark.name} has no ratio in the manifest and the exposure times are not both known; "
            "fill the ratio column"
        )
    return exposure_ratio(dark_s, bright_s)


def exposure_ratio(dark_s: float, bright_s: float) -> float:
    """`min(bright / dark, 300)`: names round the seconds, so 10 s / 0.033 s means 300."""
    return min(bright_s / dark_s, RATIO_RANGE[1])


def fit_truth(truth: npt.NDArray[np.uint16], frame: RawFrame, name: Path) -> npt.NDArray[np.uint16]:
    """Check that a truth has the mosaic's or the packed size, and cut what rounding added."""
    height, width = frame.size
    packed = packed_size(frame.size, frame.pattern)
    for wanted in ((height, width), (height // 2, width // 2), packed):
        if all(0 <= have - want <= 1 for have, want in zip(truth.shape[:2], wanted, strict=True)):
            return truth[: wanted[0], : wanted[1]]
    raise DataError(
        f"{name} is {truth.shape[1]}x{truth.shape[0]} but the dark frame is {width}x{height}; "
        "expected the same size or half of it"
    )


def list_sha256(pairs: Iterable[tuple[str, str]]) -> str:
    """Hash a list of pairs, given as scenes and dark file names, in any order."""
    lines = sorted(f"{scene}/{dark}" for scene, dark in pairs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pair_hashes(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A short hash of each pair, given as scene and dark file name; sorted, each once."""
    return sorted({hashlib.sha256(f"{scene}/{dark}".encode()).hexdigest()[:12] for scene, dark in pairs})
