"""Tables of an evaluation as plain text cells, for the terminal and the page alike.

A report is what `evaluate` gives: a dictionary with `rows`, `mean`, `settings` and `statistics`.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lowlight.report.statistics import MEASURES, Row, worst_and_best

Report = dict[str, Any]
DASH = "-"


@dataclass(frozen=True)
class Table:
    """A table: a title, columns (their titles, and whether they hold numbers), rows of text cells and a note."""

    title: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


NUMBERS = tuple((measure.title, True) for measure in MEASURES.values())
TIMES = {"predict_seconds": "predict", "merge_seconds": "merge", "seconds": "in all"}


def measures(row: Row) -> tuple[str, ...]:
    """Write the measures of a row; an unscored row says so in the first cell."""
    if "error" in row:
        return ("failed", *[""] * (len(MEASURES) - 1))
    return tuple(measure.text(row.get(name)) for name, measure in MEASURES.items())


def methods_table(reports: Sequence[Report]) -> Table:
    """One row per method: mean measures, the divergence of the luminance (JSD, bits) and the number of photos.

    Presets have a column where any method has one.
    """
    jsd = any(_jsd(report) is not None for report in reports)
    presets = any(report["settings"].get("preset") for report in reports)
    rows = []
    for report in reports:
        mark = " *" if report["settings"].get("chosen") else ""
        preset = (report["settings"].get("preset") or DASH,) if presets else ()
        divergence = (DASH if _jsd(report) is None else f"{_jsd(report):.4f}",) if jsd else ()
        mean = report["mean"]
        rows.append((_name(report) + mark, *preset, *measures(mean), *divergence, str(mean["count"])))
    names = (("method", False), *([("preset", False)] if presets else []))
    columns = (*names, *NUMBERS, *([("JSD", True)] if jsd else []), ("photos", True))
    return Table("Methods", columns, tuple(rows), _told_choices(reports))


def seconds_table(reports: Sequence[Report]) -> Table | None:
    """Seconds per photo of every method, None where network and merge were not timed apart."""
    timed = [report for report in reports if report["mean"].get("predict_seconds") is not None]
    if not timed:
        return None
    rows = tuple((_name(r), *(f"{r['mean'].get(key) or 0.0:.3f}" for key in TIMES)) for r in timed)
    columns = (("method", False), *((title, True) for title in TIMES.values()))
    return Table("Seconds per photo", columns, rows, "In the network, in the merge of ready tiles, and in all.")


def oracle_table(reports: Sequence[Report]) -> Table | None:
    """Prior against posterior reconstructions, None where none was asked for."""
    rows = []
    for report in reports:
        mean = report["mean"]
        if mean.get("oracle_mae") is None:
            continue
        for title, prefix in (("prior", ""), ("posterior", "oracle_")):
            values = [MEASURES[name].text(mean[prefix + name]) for name in ("psnr", "ssim", "mae")]
            rows.append((_name(report), title, *values))
        if mean["psnr"] is None or mean["oracle_psnr"] is None or mean["ssim"] is None or not mean["mae"]:
            continue
        psnr, ssim = mean["oracle_psnr"] - mean["psnr"], mean["oracle_ssim"] - mean["ssim"]
        mae = 100 * (mean["oracle_mae"] / mean["mae"] - 1)
        rows.append((_name(report), "gap", f"{psnr:+.2f}", f"{ssim:+.4f}", f"{mae:+.1f} %"))
    if not rows:
        return None
    columns = (("method", False), ("latent from", False), *NUMBERS[:3])
    note = "The posterior has seen the bright picture; both are of one view without detail."
    return Table("Posterior and prior", columns, tuple(rows), note)


def versions_table(versions: Sequence[dict[str, Any]]) -> Table:
    """Mean and deviation over the versions of each model, two rows a model."""
    rows = []
    for version in versions:
        for kind in ("mean", "deviation"):
            values = version[kind]
            cells = [DASH if values[n] is None else f"{values[n]:.{m.digits + 1}f}" for n, m in MEASURES.items()]
            first = (version["name"], f"mean of {version['count']}") if kind == "mean" else ("", kind)
            rows.append((*first, *cells))
    note = "Mean and sample deviation of the versions' means."
    return Table("Versions of one model", (("model", False), ("versions", False), *NUMBERS), tuple(rows), note)


def group_table(reports: Sequence[Report], key: str) -> Table:
    """Means per group of `statistics[key]` (`by_ratio` or `by_iso`), with counts."""
    title = {"by_ratio": "ratio", "by_iso": "ISO"}[key]
    groups = list(dict.fromkeys(group["group"] for report in reports for group in report["statistics"][key]))
    rows = []
    for name in groups:
        for report in reports:
            for group in report["statistics"][key]:
                if group["group"] == name:
                    rows.append((name, _name(report), *measures(group), str(group["count"])))
    columns = ((title, False), ("method", False), *NUMBERS, ("photos", True))
    if len(reports) == 1:
        columns, rows = (columns[0], *columns[2:]), [(row[0], *row[2:]) for row in rows]
    return Table(f"By {title}", columns, tuple(rows))


def photos_table(report: Report) -> Table:
    """One row per photo."""
    rows = report["rows"]
    names = [name for name in ("dark", "scene", "ratio", "iso", "picture", "reference") if _any(rows, name)]
    cells = tuple((*(cell(row[name]) for name in names), *measures(row)) for row in rows)
    return Table("Photos", (*((name, name in ("ratio", "iso")) for name in names), *NUMBERS), cells)


def extremes_table(report: Report) -> Table | None:
    """The worst and the best photos by PSNR, None for fewer than two."""
    worst, best = worst_and_best(report["rows"])
    if not worst:
        return None
    rows = [(kind, row["dark"], *measures(row)) for kind, rows in (("worst", worst), ("best", best)) for row in rows]
    return Table("Worst and best photos", (("", False), ("photo", False), *NUMBERS), tuple(rows))


def settings_table(settings: dict[str, Any]) -> Table:
    """What was measured and how."""
    rows = [(key, _setting(value)) for key, value in settings.items() if value not in (None, "", {})]
    return Table("Settings", (("setting", False), ("value", False)), tuple(rows))


def cell(value: Any) -> str:
    """Write one value of a row."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def finite(value: Any) -> Any:
    """A plain value, row or list of rows, with None in place of what is no number or infinite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_as_jsonl(reports: Sequence[Report]) -> str:
    """All rows of all methods, one JSON object a line, each with its method and protocol."""
    return plain_rows_as_jsonl(_all_rows(reports))


def rows_as_csv(reports: Sequence[Report]) -> str:
    """All rows of all methods as CSV; columns that a row lacks are empty."""
    return plain_rows_as_csv(_all_rows(reports))


def plain_rows_as_jsonl(rows: Sequence[Row]) -> str:
    """Rows as they are, one JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def plain_rows_as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV; columns that a row lacks are empty, and values under a name become `name.key`."""
    rows = [_flat(row) for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _flat(row: Row, prefix: str = "") -> Row:
    flat: Row = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _all_rows(reports: Sequence[Report]) -> list[Row]:
    keys = ("name", "strategy", "protocol")
    named = [{"name": "method"}.get(key, key) for key in keys]
    rows = []
    for report in reports:
        about = {to: report["settings"].get(key) for key, to in zip(keys, named, strict=True)}
        rows += [{**about, **row} for row in report["rows"]]
    return rows


def _told_choices(reports: Sequence[Report]) -> str:
    """Say which weights were chosen on what, those of which the same is true in one sentence."""
    told: dict[str, dict[str, None]] = {}
    for report in reports:
        settings = report["settings"]
        if settings.get("chosen"):
            weights = _name(report).removesuffix(f", {settings.get('strategy')}")
            told.setdefault(settings["chosen"], {})[weights] = None
    sentences = []
    for chosen, names in told.items():
        *first, last = names
        were = f"{', '.join(first)} and {last} were each" if first else f"{last} was"
        sentences.append(f"* {were} {chosen}.")
    return " ".join(sentences)


def _name(report: Report) -> str:
    return str(report["settings"].get("name") or report["settings"].get("pictures"))


def _jsd(report: Report) -> float | None:
    value = report.get("statistics", {}).get("luminance", {}).get("jsd")
    return None if value is None else float(value)


def _any(rows: Sequence[Row], name: str) -> bool:
    return any(row.get(name) not in (None, "") for row in rows)


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(item)}" for key, item in value.items())
    return str(value)
