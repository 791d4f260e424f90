"""The plots of a report page, with their captions and legends, as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lowlight.report.plots import Series, histogram_plot, legend, line_plot, scatter_plot
from lowlight.report.statistics import psnr_points
from lowlight.report.tables import Report

HIDDEN_CURVES = ("step", "epoch", "elapsed_s", "skipped", "data_share", "rate", "pairs", "seconds")
MAX_PANELS = 12


@dataclass(frozen=True)
class Curves:
    """The log of one training run: its name and its rows, each with a `step`."""

    name: str
    rows: Sequence[dict[str, Any]]


def distribution_figures(reports: Sequence[Report]) -> str:
    """PSNR over ISO and over ratio with the fits' R2, and the luminance histograms."""
    names = [(report["settings"]["name"], index) for index, report in enumerate(reports)]
    figures = [_psnr_figure(reports, "iso", "PSNR over ISO", "ISO", names)]
    figures.append(_psnr_figure(reports, "ratio", "PSNR over the amplification ratio", "ratio", names))
    light = [report["statistics"].get("luminance") for report in reports]
    if light[0] and sum(light[0]["truths"]):
        counts = [("truths", light[0]["truths"], -1)]
        counts += [(name, each["pictures"], index) for (name, index), each in zip(names, light, strict=True)]
        divergences = ", ".join(f"{each['jsd']:.4f}" for each in light if each["jsd"] is not None)
        note = f"Jensen-Shannon divergence from the truths, in bits: {divergences}. Towering levels are cut off."
        plot = histogram_plot("Luminance of all pictures", counts, "luminance of 255")
        figures.append(_figure("Luminance of all pictures", plot, note, legend([("truths", -1), *names])))
    return f'<div class="plots">{"".join(figures)}</div>' if any(figures) else ""


def _psnr_figure(
    reports: Sequence[Report], key: str, title: str, x_title: str, names: Sequence[tuple[str, int]]
) -> str:
    series, lines, notes = [], [], []
    for report, (name, index) in zip(reports, names, strict=True):
        points = psnr_points(report["rows"], key)
        if not points:
            continue
        series.append(Series(name, points, index))
        fit = report["statistics"]["psnr_fits"][key]
        if fit:
            lines.append(Series(name, _fitted(fit, [x for x, _ in points]), index))
            notes.append(f"{fit['r2']:.2f}" if len(reports) == 1 else f"{fit['r2']:.2f} ({name})")
    if len({x for each in series for x, _ in each.points}) < 2:
        return ""  # unknown everywhere, or one and the same
    log = key == "iso"
    plot = scatter_plot(title, series, x_title + (" (logarithmic)" if log else ""), "PSNR dB", log_x=log, lines=lines)
    note = f"R\N{SUPERSCRIPT TWO} of a linear fit: {', '.join(notes)}." if notes else "Too few photos for a fit."
    return _figure(title, plot, note, legend(names) if len(reports) > 1 else "")


def _fitted(fit: dict[str, float], xs: Sequence[float]) -> list[tuple[float, float]]:
    low, high = min(xs), max(xs)
    steps = (low * (high / low) ** (index / 40) if low > 0 else low + (high - low) * index / 40 for index in range(41))
    return [(x, fit["slope"] * x + fit["intercept"]) for x in steps]


def curve_figures(curves: Sequence[Curves]) -> str:
    """One plot per number of the training logs, all runs in each."""
    flat = [(each.name, [flat_numbers(row) for row in each.rows]) for each in curves]
    keys = dict.fromkeys(key for _, rows in flat for row in rows for key in row)
    shown = [key for key in keys if key.rpartition(" ")[2] not in HIDDEN_CURVES][:MAX_PANELS]
    names = [(name, index) for index, (name, _) in enumerate(flat)]
    figures = []
    drawn: list[list[Sequence[tuple[float, float]]]] = []
    for key in shown:
        series = [
            Series(name, [(row.get("step", row.get("epoch", 0)), row[key]) for row in rows if key in row], index)
            for index, (name, rows) in enumerate(flat)
        ]
        points = [each.points for each in series]
        if points in drawn:  # a loss of one part alone
            continue
        drawn.append(points)
        plot = line_plot(f"{key} over steps", [each for each in series if each.points], "step", key)
        figures.append(_figure(key[0].upper() + key[1:], plot, "", legend(names)))
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def flat_numbers(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row, nested ones under names such as "validation psnr"."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= flat_numbers(value, f"{prefix}{key} ")
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
            found[prefix + key] = float(value)
    return found


def _figure(title: str, plot: str, note: str, names: str) -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<figure class="plot"><figcaption>{escape(title)}</figcaption>{plot}{names}{below}</figure>'
