"""Numbers drawn from the rows of an evaluation: means, groups, versions and fits.

A row is a dictionary with `psnr`, `ssim`, `mae`, `colour_error` (None where one does not apply) or `error`, and
`ratio` and `iso` (None where unknown). A row of unmerged tiles has `tiles`, their number, as its weight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """How a measure is shown: its title, its digits, and which way is better."""

    title: str
    digits: int
    higher_is_better: bool = False

    def text(self, value: float | None) -> str:
        """Write a value; a dash where there is none."""
        return "-" if value is None else f"{value:.{self.digits}f}"


MEASURES = {
    "psnr": Measure("PSNR dB", 2, higher_is_better=True),
    "ssim": Measure("SSIM", 4, higher_is_better=True),
    "mae": Measure("MAE", 4),
    "colour_error": Measure("colour", 2),
}
RATIO_EDGES = (50.0, 100.0, 200.0)
ISO_EDGES = (200.0, 800.0, 3200.0)  # the bands are two stops wide
EXACT_GROUPS = 6  # up to so many different ratios are shown as they are


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of every measure over the rows where it is a number, None where there is none.

    `count` rows were scored, `failed` could not be; `infinite_psnr` of the scored ones are left out of the mean
    PSNR because picture and truth are identical.
    """
    scored = [row for row in rows if "error" not in row]
    means: Row = {name: _mean(scored, name) for name in MEASURES}
    means["count"] = len(scored)
    means["failed"] = len(rows) - len(scored)
    means["infinite_psnr"] = sum(row["psnr"] is None for row in scored)
    for name in ("seconds", "predict_seconds", "merge_seconds", "oracle_psnr", "oracle_ssim", "oracle_mae"):
        if any(name in row for row in scored):
            means[name] = _mean([{"tiles": 1, **row} for row in scored], name)
    return means


def _mean(rows: Sequence[Row], name: str) -> float | None:
    pairs = [(row[name], row.get("tiles", 1)) for row in rows if row.get(name) is not None]
    if not pairs:
        return None
    values, weights = zip(*pairs, strict=True)
    return float(np.average(values, weights=weights))


def by_ratio(rows: Sequence[Row]) -> list[Row]:
    """Mean rows per amplification ratio under `group`: each ratio where there are few, else bands."""
    known = sorted({row["ratio"] for row in rows if row.get("ratio") is not None})
    if len(known) <= EXACT_GROUPS:
        return _grouped(rows, [(f"{ratio:g}", _is(ratio)) for ratio in known], "ratio")
    return _grouped(rows, _bands(RATIO_EDGES), "ratio")


def by_iso(rows: Sequence[Row]) -> list[Row]:
    """Mean rows per ISO band under `group`; rows of unknown ISO form the last group."""
    return _grouped(rows, _bands(ISO_EDGES), "iso")


def _is(wanted: float) -> Callable[[float], bool]:
    return lambda value: value == wanted


def _between(low: float, high: float) -> Callable[[float], bool]:
    return lambda value: low < value <= high


def _bands(edges: Sequence[float]) -> list[tuple[str, Callable[[float], bool]]]:
    limits = (-math.inf, *edges, math.inf)
    bands: list[tuple[str, Callable[[float], bool]]] = []
    for low, high in pairwise(limits):
        name = f"up to {high:g}" if low == -math.inf else f"over {low:g}"
        if math.isfinite(low) and math.isfinite(high):
            name = f"{low:g}-{high:g}"  # the upper end belongs to the band
        bands.append((name, _between(low, high)))
    return bands


def _grouped(rows: Sequence[Row], groups: list[tuple[str, Callable[[float], bool]]], key: str) -> list[Row]:
    found = []
    for name, inside in groups:
        members = [row for row in rows if row.get(key) is not None and inside(row[key])]
        if members:
            found.append({"group": name, **mean_row(members)})
    rest = [row for row in rows if row.get(key) is None]
    return [*found, {"group": "unknown", **mean_row(rest)}] if rest else found


def linear_fit(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float] | None:
    """Least squares `y = slope x + intercept` with its R2; None for fewer than 3 points or one single x."""
    if len(xs) < 3 or len(set(xs)) < 2:
        return None
    x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    slope, intercept = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - slope * x - intercept) ** 2).sum())
    r2 = 1 - left / spread if spread else 0.0
    return {"slope": float(slope), "intercept": float(intercept), "r2": r2, "count": len(x)}


def psnr_points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """`(row[key], psnr)` of every row that has both."""
    return [(row[key], row["psnr"]) for row in rows if row.get(key) is not None and row.get("psnr") is not None]


def statistics(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything a report says of its rows beside their mean."""
    fits = {}
    for key in ("iso", "ratio"):
        points = psnr_points(rows, key)
        fits[key] = linear_fit([x for x, _ in points], [y for _, y in points])
    return {"by_ratio": by_ratio(rows), "by_iso": by_iso(rows), "psnr_fits": fits}


def over_versions(means: Sequence[Row]) -> Row:
    """Mean and deviation of the mean rows of several versions of one model.

    The deviation is the sample's (divided by n - 1), None for a single version.
    """
    result: Row = {"count": len(means), "mean": {}, "deviation": {}}
    for name in MEASURES:
        values = [mean[name] for mean in means if mean[name] is not None]
        result["mean"][name] = float(np.mean(values)) if values else None
        result["deviation"][name] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return result


def worst_and_best(rows: Sequence[Row], count: int = 5) -> tuple[list[Row], list[Row]]:
    """The `count` rows of lowest PSNR, worst first, and of highest, best first; no row is in both."""
    ranked = sorted((row for row in rows if row.get("psnr") is not None), key=lambda row: float(row["psnr"]))
    count = min(count, len(ranked) // 2)
    return ranked[:count], ranked[::-1][:count]
