"""The command as a whole: its help, its version, its exit codes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lowlight import __version__, cli
from lowlight.core.errors import (
    BrokenFileError,
    ConfigError,
    DataError,
    LowlightError,
    OutputError,
    UnsupportedRawError,
    UsageError,
    WeightsError,
)

REPOSITORY = Path(__file__).resolve().parents[1]
COMMANDS = [command.name for command in cli.app.registered_commands]


def lowlight(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **changes}
    typed = [sys.executable, "-m", "lowlight", *arguments]
    return subprocess.run(typed, env=environment, capture_output=True, text=True, check=False)


def test_every_command_is_there() -> None:
    assert {"enhance", "inspect", "models", "demo", "eval", "train", "pack"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_every_option(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0 and "Usage" in result.output
    (registered,) = [entry for entry in cli.app.registered_commands if entry.name == command]
    assert registered.callback is not None and registered.callback.__doc__
    for parameter in typer.main.get_command(cli.app).commands[command].params:  # type: ignore[attr-defined]
        assert parameter.help or parameter.name == "help", f"{command}: {parameter.name} says nothing of itself"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_line_in_the_readme(command: str) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `lowlight {command}` \| \S", readme, re.MULTILINE)


def test_the_version_and_the_module() -> None:
    ended = lowlight("--version")
    assert (ended.returncode, ended.stdout.strip()) == (0, f"lowlight {__version__}")
    assert lowlight().returncode == 2  # no command: help, and wrong use
    assert lowlight("no-such-command").returncode == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError, 2),
        (ConfigError, 2),
        (BrokenFileError, 1),
        (UnsupportedRawError, 1),
        (WeightsError, 1),
        (OutputError, 1),
        (DataError, 1),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(
    error: type[LowlightError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error("this went wrong")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli.signal, "signal", lambda *given: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr() == ("", "lowlight: this went wrong\n")


def test_a_wrong_option_is_no_traceback() -> None:
    ended = lowlight("enhance", "x.nef", "-o", "out", "--ratio", "-3")
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("lowlight: ") and "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
