"""Statistics, tables and plots, from rows alone."""

import csv
import io
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lowlight.report import plots
from lowlight.report.page import photo_anchors
from lowlight.report.plots import Axis, Series, axis_around, histogram_plot, line_plot, scatter_plot
from lowlight.report.statistics import (
    by_iso,
    by_ratio,
    linear_fit,
    mean_row,
    over_versions,
    statistics,
    worst_and_best,
)
from lowlight.report.tables import (
    extremes_table,
    finite,
    group_table,
    methods_table,
    oracle_table,
    photos_table,
    rows_as_csv,
    seconds_table,
    versions_table,
)


def row(psnr: float | None, ratio: float = 100.0, iso: float | None = 100.0, **more: Any) -> dict[str, Any]:
    values = {"psnr": psnr, "ssim": 0.5, "mae": 0.1, "colour_error": None}
    return {"dark": f"{psnr}.dng", "scene": "s", "ratio": ratio, "iso": iso, **values, **more}


def report(rows: list[dict[str, Any]], name: str = "net", **more: Any) -> dict[str, Any]:
    about = {"name": name, "weights": name, "protocol": "half", **more}
    return {"rows": rows, "mean": mean_row(rows), "settings": about, "statistics": statistics(rows)}


def test_means_leave_out_what_has_no_number() -> None:
    rows = [row(20.0), row(30.0), row(None), {"dark": "x", "ratio": None, "iso": None, "error": "broken"}]
    mean = mean_row(rows)
    assert (mean["psnr"], mean["count"], mean["failed"], mean["infinite_psnr"]) == (25.0, 3, 1, 1)
    assert mean["colour_error"] is None and "seconds" not in mean
    # A row of tiles stands for all its tiles.
    assert mean_row([row(20.0, tiles=3), row(40.0, tiles=1)])["psnr"] == 25.0


def test_groups_have_counts_and_lose_no_row() -> None:
    rows = [row(28.0, 300, 50), row(30.0, 100, 200), row(20.0, 250, 201), row(22.0, 100, 25600), row(21.0, 100, None)]
    ratios = by_ratio(rows)
    assert [(g["group"], g["count"], g["psnr"]) for g in ratios] == [
        ("100", 3, pytest.approx(73 / 3)),
        ("250", 1, 20.0),
        ("300", 1, 28.0),
    ]
    assert [(g["group"], g["count"]) for g in by_iso(rows)] == [
        ("up to 200", 2),
        ("200-800", 1),
        ("over 3200", 1),
        ("unknown", 1),
    ]


@given(st.lists(st.floats(1, 300), min_size=1, max_size=30))
def test_every_ratio_is_in_one_group(ratios: list[float]) -> None:
    groups = by_ratio([row(20.0, ratio) for ratio in ratios])
    assert sum(group["count"] for group in groups) == len(ratios)


def test_fits_have_the_r2_of_the_textbook() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(50, 25600, 40)
    y = 30 - x / 5000 + rng.normal(0, 1, 40)
    fit = linear_fit(list(x), list(y))
    assert fit is not None and fit["r2"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    exact = linear_fit([1, 2, 3], [5, 7, 9])
    assert exact is not None and (exact["slope"], exact["intercept"], exact["r2"]) == pytest.approx((2, 3, 1))
    assert linear_fit([100, 100, 100], [1, 2, 3]) is None
    assert linear_fit([1, 2], [1, 2]) is None
    assert linear_fit([1, 2, 3], [4, 4, 4])["r2"] == 0  # type: ignore[index]


def test_versions_have_mean_and_sample_deviation() -> None:
    versions = over_versions([mean_row([row(28.0)]), mean_row([row(29.0)]), mean_row([row(30.0)])])
    assert (versions["count"], versions["mean"]["psnr"], versions["deviation"]["psnr"]) == (3, 29.0, 1.0)
    assert versions["deviation"]["colour_error"] is None
    assert over_versions([mean_row([row(28.0)])])["deviation"]["psnr"] is None
    table = versions_table([{"name": "m", **versions}])
    assert [cells[2] for cells in table.rows] == ["29.000", "1.000"]


def test_worst_and_best_do_not_meet() -> None:
    rows = [row(float(psnr)) for psnr in (24, 31, 22, 29, 27)] + [row(None)]
    worst, best = worst_and_best(rows)
    assert [r["psnr"] for r in worst] == [22, 24] and [r["psnr"] for r in best] == [31, 29]
    assert extremes_table(report([row(20.0)])) is None


def test_tables_mark_chosen_weights_and_keep_one_cell_a_column() -> None:
    rows = [row(28.0, predict_seconds=1.0, merge_seconds=0.5, seconds=2.0), row(30.0, 250, 400)]
    reports = [report(rows, "a", chosen="chosen on these very pairs"), report(rows, "b")]
    tables = [methods_table(reports), seconds_table(reports), photos_table(reports[0]), extremes_table(reports[0])]
    tables += [group_table(each, key) for key in ("by_ratio", "by_iso") for each in (reports, reports[:1])]
    for table in tables:
        assert table is not None
        assert all(len(cells) == len(table.columns) for cells in table.rows), table.title
    assert [cells[0] for cells in tables[0].rows] == ["a *", "b"]  # type: ignore[union-attr]
    assert "a was chosen on these very pairs" in tables[0].note  # type: ignore[union-attr]
    assert oracle_table(reports) is None
    seen = report([row(28.0, oracle_psnr=30.0, oracle_ssim=0.6, oracle_mae=0.075)])
    assert oracle_table([seen]).rows[2] == ("net", "gap", "+2.00", "+0.1000", "-25.0 %")  # type: ignore[union-attr]


def test_every_choice_is_told_of_weights_of_one_file_name() -> None:
    very = "chosen on these very pairs, which flatters"
    said = {"a/best.safetensors": very, "b/best.safetensors": "chosen on other validation pairs", "c/best": very}
    reports = [report([row(28.0)], name, weights="best.safetensors", chosen=chosen) for name, chosen in said.items()]
    several = [report([row(28.0)], f"d, {s}", weights="best.safetensors", strategy=s, chosen=very) for s in "xy"]
    assert methods_table(reports + several).note == (
        f"* a/best.safetensors, c/best and d were each {very}. "
        "* b/best.safetensors was chosen on other validation pairs."
    )


def test_numbers_that_are_none_become_nothing() -> None:
    assert finite([{"a": math.nan, "b": {"c": -math.inf, "d": [1.5, math.nan]}, "e": "nan", "f": True}]) == [
        {"a": None, "b": {"c": None, "d": [1.5, None]}, "e": "nan", "f": True}
    ]


def test_rows_of_different_columns_make_one_csv() -> None:
    reports = [report([row(28.0)]), report([{"dark": 'a,"b".dng', "error": "line\nbreak"}], "other")]
    read = list(csv.DictReader(io.StringIO(rows_as_csv(reports))))
    assert [line["method"] for line in read] == ["net", "other"]
    assert (read[1]["dark"], read[1]["error"], read[1]["psnr"]) == ('a,"b".dng', "line\nbreak", "")


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6))
@settings(max_examples=60)
def test_axes_have_a_few_round_ticks_inside(low: float, length: float) -> None:
    axis = axis_around("x", [low, low + length])
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    slack = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)


@given(st.floats(1, 1e5), st.floats(1, 1e4))
@example(115.0, 1.125)  # from just above 100 to 149
def test_logarithmic_axes_have_ticks(low: float, factor: float) -> None:
    axis = axis_around("ISO", [low, low * factor], log=True)
    ticks = axis.ticks()
    slack = 1e-6 * (axis.high - axis.low)
    assert len(ticks) > 1 and all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    assert Axis("ISO", 10, 1000, log=True).share(100) == pytest.approx(0.5)


def test_plots_are_well_formed_and_stay_in_their_frame() -> None:
    nasty = '<script>alert("x")</script> & co'
    points = [(50.0, 20.0), (25600.0, 35.0), (800.0, 28.0)]
    drawings = [
        scatter_plot(nasty, [Series(nasty, points)], nasty, "PSNR", log_x=True, lines=[Series("fit", points, 3)]),
        line_plot("loss", [Series("a", [(0, 3.0), (100, 1.0)]), Series("b", [(50, 2.0)], 7)], "step", "loss"),
        histogram_plot("light", [("truths", [9, *[1] * 255], -1), ("net", list(range(256)), 0)], "luminance"),
    ]
    for drawing in drawings:
        assert "<script" not in drawing
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img" and root.get("aria-label") == root[0].text
        for circle in root.iter("circle"):
            x, y = float(circle.get("cx", "nan")), float(circle.get("cy", "nan"))
            assert plots.LEFT <= x <= plots.WIDTH and 0 <= y <= plots.HEIGHT - plots.BOTTOM
        for path in root.iter("path"):
            numbers = path.get("d", "").translate(str.maketrans("MLZ", "   ")).replace(",", " ").split()
            assert all(math.isfinite(float(number)) and -1 <= float(number) <= plots.WIDTH for number in numbers)
    assert "nothing" in scatter_plot("t", [], "x", "y")


def test_a_name_that_two_photos_have_leads_to_neither() -> None:
    assert photo_anchors(["a.dng", "b.dng", "a.dng", "c.dng"], [0, 1, 2]) == {"b.dng": "photo-1"}
