"""Tables on stdout: whole in pipes, folded in terminals, and nothing of them is ever lost."""

import pytest
from rich.table import Table

from lowlight.cli.tables import FOLDED, add_names, add_numbers, show

NAME, NUMBER, COLUMNS = "a/rather/long/path/to/some/weights.safetensors", "123456.789", 8


def table(columns: int = COLUMNS) -> Table:
    made = Table(box=None)
    add_names(made, "file [of weights]", len(NAME))
    for place in range(columns):
        add_numbers(made, f"number {place}")
    made.add_row(NAME, *[NUMBER] * columns)
    return made


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, width: int | None) -> str:
    monkeypatch.setenv("COLUMNS", str(width or 80))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    if width:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
    show(table(columns))
    return capsys.readouterr().out


def test_a_file_gets_every_row_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    head, row = shown(capsys, monkeypatch, COLUMNS, None).rstrip("\n").split("\n")
    assert row.split() == [NAME, *[NUMBER] * COLUMNS]
    assert "file [of weights]" in head


def test_a_terminal_gets_names_folded_and_numbers_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, *rows = shown(capsys, monkeypatch, 3, 80).rstrip("\n").split("\n")
    assert len(rows) > 1 and max(map(len, rows)) <= 80
    assert rows[0].split()[1:] == [NUMBER] * 3
    assert "".join(row.split()[0] for row in rows) == NAME


def test_a_terminal_too_narrow_for_the_numbers_loses_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, *rows = shown(capsys, monkeypatch, COLUMNS, 40).rstrip("\n").split("\n")
    assert rows[0].split()[1:] == [NUMBER] * COLUMNS
    assert "".join(row.split()[0] for row in rows) == NAME
    assert len(rows[0].split()[0]) >= FOLDED
