"""`lowlight inspect`: the rows, the printing and the exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lowlight.cli.inspect import inspect
from lowlight.core.photo import GRBG
from lowlight.workflows.inspect import inspect_file
from lowlight.writers.cfa_dng import write_cfa_dng

app = typer.Typer()
app.command()(inspect)
runner = CliRunner()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good [bold].dng"
    mosaic = np.random.default_rng(0).integers(500, 9000, (65, 97)).astype(np.uint16)
    write_cfa_dng(
        path,
        mosaic,
        pattern=GRBG,
        black=(500,) * 4,
        white=16383,
        wb=(2, 1, 1.5, 1),
        exposure_s=1 / 30,
        iso=800,
    )
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.dng"
    path.touch()
    return path


def test_a_row_holds_everything_and_is_json(good: Path) -> None:
    row = inspect_file(good)
    assert json.loads(json.dumps(row)) == row
    assert row["ok"] is True and row["reason"] is None and row["file"] == str(good)
    assert (row["width"], row["height"], row["pattern"]) == (97, 65, "GRBG")
    assert (row["black"], row["black_source"], row["white"]) == ([500.0] * 4, "file", [16383.0] * 4)
    assert (row["wb"], row["wb_source"]) == ([2.0, 1.0, 1.5, 1.0], "camera")
    assert row["camera"] == "lowlight Synthetic" and row["camera_to_srgb"] is None
    assert (row["iso"], row["orientation"]) == (800, 1)
    assert len(row["notes"]) == 1


def test_a_refused_file_is_a_row_of_the_same_keys(good: Path, bad: Path) -> None:
    row = inspect_file(bad)
    assert row["ok"] is False and row["reason"].startswith("bad.dng is empty")
    assert row.keys() == inspect_file(good).keys()


def test_the_command_prints_and_succeeds(good: Path) -> None:
    result = runner.invoke(app, [str(good)])
    assert result.exit_code == 0, result.output
    for text in ("good [bold].dng", "GRBG", "1/30 s", "ISO 800", "500 (file)", "can be enhanced"):
        assert text in result.stdout
    assert "cannot be enhanced" not in result.stdout


def test_a_file_cannot_talk_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    light = np.full((64, 64), 900, np.uint16)
    made = {"make": "\x1b]0;title\x07\x1b[31mMade", "model": "Up"}
    write_cfa_dng(path, light, pattern=GRBG, black=(500,) * 4, white=16383, wb=(2, 1, 1.5, 1), **made)
    shown = runner.invoke(app, [str(path)]).stdout
    assert "\x1b" not in shown and r"\x1b]0;title\x07" in shown.replace("\n", "")


def test_one_bad_file_of_two_gives_exit_code_1(good: Path, bad: Path) -> None:
    result = runner.invoke(app, [str(bad), str(good)])
    assert result.exit_code == 1
    assert "cannot be enhanced: bad.dng is empty" in result.stdout
    assert "GRBG" in result.stdout


@pytest.mark.parametrize("how", ["option", "environment"])
def test_json(good: Path, bad: Path, how: str) -> None:
    option, environment = (["--json"], {}) if how == "option" else ([], {"LOWLIGHT_JSON": "1"})
    result = runner.invoke(app, [str(good), str(bad), *option], env=environment)
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert [row["ok"] for row in rows] == [True, False]
    assert rows == [inspect_file(good), inspect_file(bad)]


def test_no_file_is_wrong_use() -> None:
    assert runner.invoke(app, []).exit_code == 2
