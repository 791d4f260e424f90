"""Scoring: a network or a classical baseline on a manifest of pairs, or two folders of finished pictures.

Every function gives one report: a dictionary of plain values with `rows`, `mean` and `settings`.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lowlight import __version__
from lowlight.checkpoint import find_weights, load_weights
from lowlight.core.errors import DataError, LowlightError, OutputError, UsageError
from lowlight.core.photo import RawFrame
from lowlight.data.pairs import Pair, PairRow, load_pair, read_manifest
from lowlight.data.pictures import READERS, read_picture
from lowlight.metrics import METRICS
from lowlight.metrics.color_error import block_colour_error
from lowlight.ops.strategies import Tiling, choose_tiling
from lowlight.raw.render import libraw_version
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.baselines import WAVELET, WAVELET_METHOD, open_baseline
from lowlight.workflows.validation import as_planes, match_sizes, measure
from lowlight.writers.atomic import replacing

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint16]
Row = dict[str, Any]
Progress = Callable[[int, int], None]  # rows done, rows in all

COLOUR_ERROR = "colour_error"
ROUNDING = (
    "pictures and truths are compared as 16-bit values; halves are 2x2 means of encoded values, rounded to the nearest"
)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to score and how. `weights` is a file, a shipped model's name or None for the default ones."""

    weights: str | Path | None = None
    baseline: str | None = None  # in place of a network: a name of BASELINES
    size: Literal["half", "full"] = "half"
    tiling: Tiling = field(default_factory=choose_tiling)
    precision: str = "auto"
    device: str = "auto"
    batch: int | None = None  # tiles at a time; None: what suits the device


@dataclass(frozen=True)
class Method:
    """What makes pictures: `picture(frame, ratio)` to uint16 `[H, W, 3]`, and what the report says of it."""

    picture: Callable[[RawFrame, float], Pixels]
    settings: dict[str, Any]


def evaluate(manifest: Path, options: EvaluateOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Enhance the dark frame of every pair by its ratio and score it against the bright one.

    Rows have `dark`, `scene`, `ratio`, `psnr` (dB), `ssim`, `mae` (of encoded values in [0, 1]), `colour_error`
    (CIEDE2000 between 32x32 block means), `seconds` (enhancing only); a pair that fails has `error` in their
    place. A measure that does not apply is None. Pairs are read one at a time.
    """
    pairs = read_manifest(manifest)
    if options.size == "full":
        _expect_pictures(pairs)
    method = open_method(options)
    rows = []
    for done, pair in enumerate(pairs, start=1):
        rows.append(_pair_row(pair, method, options.size))
        if progress:
            progress(done, len(pairs))
    settings = {
        "manifest": str(manifest),
        "manifest_sha256": _sha256(manifest),
        **method.settings,
        "size": options.size,
        **_surroundings(),
    }
    return {"rows": rows, "mean": mean_row(rows), "settings": settings}


def evaluate_pictures(pictures: Path, references: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Score the pictures of one folder against those of another that have the same name, suffixes aside.

    A picture of twice the other's size is compared at the smaller size. What has no partner is listed in the
    report's `unmatched`; other files than pictures and hidden ones are left alone.
    """
    ours, theirs = _by_stem(pictures), _by_stem(references)
    stems = sorted(ours.keys() & theirs.keys())
    if not stems:
        raise DataError(
            f"{pictures} and {references} have no two pictures of one name ({len(ours)} and {len(theirs)} names); "
            "pictures are matched by their names without the suffix"
        )
    rows = []
    for done, stem in enumerate(stems, start=1):
        rows.append(_picture_row(ours[stem], theirs[stem]))
        if progress:
            progress(done, len(stems))
    unmatched = {
        "pictures": [path.name for stem in sorted(ours.keys() - theirs.keys()) for path in ours[stem]],
        "references": [path.name for stem in sorted(theirs.keys() - ours.keys()) for path in theirs[stem]],
    }
    settings = {"pictures": str(pictures), "references": str(references), **_surroundings()}
    return {"rows": rows, "mean": mean_row(rows), "unmatched": unmatched, "settings": settings}


def open_method(options: EvaluateOptions) -> Method:
    """Load the network, or find the baseline, that the options name; impossible choices raise `UsageError`."""
    half = options.size == "half"
    if options.baseline is not None:
        make = open_baseline(options.baseline)
        settings: dict[str, Any] = {"baseline": options.baseline, "weights": None}
        if options.baseline == "wavelet":
            settings["wavelet"] = {**WAVELET, "method": WAVELET_METHOD[options.size]}
        return Method(lambda frame, ratio: make(frame, ratio, half=half), settings)
    path = find_weights(options.weights)
    model, header = load_weights(path)
    tiling = options.tiling
    restorer = Restorer(
        model,
        RestorerOptions(
            grid=tiling.grid,
            merge=tiling.merge,
            power=tiling.power,
            precision=options.precision,
            batch=options.batch,
            size=options.size,
        ),
        options.device,
    )
    if restorer.traits.out_channels != 3:
        raise UsageError(f"{path.name} gives gray pictures; the truths of a manifest are in colour")
    settings = {
        "weights": path.name,
        "weights_sha256": _sha256(path),
        "model": header["model"],
        "config": header["config"],
        "grid": {key: value for key, value in asdict(tiling.grid).items() if value is not None},
        "merge": tiling.merge,
        "power": tiling.power if tiling.merge == "idw" else None,
        "precision": str(restorer.dtype).removeprefix("torch."),
        "device": str(restorer.device),
        "batch": restorer.batch,
    }
    return Method(lambda frame, ratio: restorer.photo(frame, ratio).pixels, settings)


def score(picture: Pixels, truth: Pixels) -> dict[str, Any]:
    """Every metric of two uint16 pictures `[H, W, C]`, brought to one size, and the colour error of colour ones.

    Equal pictures have no finite PSNR: it is None, and `note` says why.
    """
    picture, truth = match_sizes(picture, truth)
    values: dict[str, Any] = dict(measure(picture, truth))
    colour = picture.shape[2] == 3
    values[COLOUR_ERROR] = block_colour_error(as_planes(picture), as_planes(truth)) if colour else None
    if values["psnr"] is None:
        values["note"] = "the pictures are identical: their PSNR is infinite and stays out of the mean"
    return values


def mean_row(rows: list[Row]) -> dict[str, Any]:
    """The mean of every measure over the rows where it is a number, None where there is none.

    `count` rows were scored, `failed` could not be; `infinite_psnr` of the scored ones are left out of the mean
    PSNR because picture and truth are identical.
    """
    scored = [row for row in rows if "error" not in row]
    means: dict[str, Any] = {}
    for name in (*METRICS, COLOUR_ERROR):
        values = [row[name] for row in scored if row[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    means["count"] = len(scored)
    means["failed"] = len(rows) - len(scored)
    means["infinite_psnr"] = sum(row["psnr"] is None for row in scored)
    return means


def report_json(report: dict[str, Any]) -> str:
    """A report as JSON text."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON; `path` appears whole or not at all."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(report_json(report), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}.") from error


def _pair_row(pair: PairRow, method: Method, size: str) -> Row:
    row: Row = {"dark": pair.dark.name, "scene": pair.scene, "ratio": pair.ratio}
    with _error_in(row):
        loaded = load_pair(pair)
        row["ratio"] = loaded.ratio
        if size == "full":
            _expect_full_size(loaded, pair)
        began = time.perf_counter()
        picture = method.picture(loaded.frame, loaded.ratio)
        seconds = time.perf_counter() - began
        row.update(score(picture, loaded.truth), seconds=round(seconds, 3))
    return row


def _picture_row(pictures: list[Path], references: list[Path]) -> Row:
    row: Row = {"picture": pictures[0].name, "reference": references[0].name}
    with _error_in(row):
        for several in (pictures, references):
            if len(several) > 1:
                names = ", ".join(path.name for path in several)
                raise DataError(f"{names} share one name in {several[0].parent}; keep one of them")
        row.update(score(read_picture(pictures[0]), read_picture(references[0])))
    return row


@contextmanager
def _error_in(row: Row) -> Iterator[None]:
    """Keep what goes wrong with one row in the row, so that the others are still scored."""
    try:
        yield
    except LowlightError as error:
        row["error"] = str(error)
    except Exception as error:  # decoders and devices raise what they like; the log has the trace
        logger.debug("a row failed", exc_info=True)
        row["error"] = f"{type(error).__name__}: {error}"


def _expect_pictures(pairs: list[PairRow]) -> None:
    for pair in pairs:
        if pair.bright.suffix.lower() not in READERS:
            raise UsageError(
                f"{pair.bright.name} is rendered at half size, as every RAW truth is; use --size half, or a manifest "
                "whose bright pictures have full size"
            )


def _expect_full_size(pair: Pair, row: PairRow) -> None:
    if pair.truth.shape[:2] != pair.frame.size:
        (height, width), (rows, cols) = pair.truth.shape[:2], pair.frame.size
        raise UsageError(
            f"{row.bright.name} is {width}x{height} but the dark frame is {cols}x{rows}; use --size half, or a truth "
            "of full size"
        )


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    found: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in READERS and not path.name.startswith(".") and path.is_file():
            found.setdefault(path.stem, []).append(path)
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _surroundings() -> dict[str, Any]:
    versions = {
        "lowlight": __version__,
        "rawpy": version("rawpy"),
        "libraw": libraw_version(),
        "torch": version("torch"),
    }
    return {"colour_error": "CIEDE2000 of 32x32 block means", "rounding": ROUNDING, "versions": versions}
