"""The command as a whole: its help, its version, its exit codes."""

import os
import re
import shutil
import signal
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
    MissingWeightsError,
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
        (MissingWeightsError, 2),
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_stdout_does_not_take_costs_no_photo(dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    typed = [sys.executable, "-m", "lowlight", "enhance", str(dark_dng), "-o", str(tmp_path / "out.png")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LOWLIGHT_WEIGHTS": str(tiny_weights)}
    for more in ([], ["--json", "--overwrite"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*typed, *more], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1 and "could not be written to stdout" in done.stderr
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
        assert (tmp_path / "out.png").is_file()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*typed[:3], "models"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_stderr_does_not_take_costs_no_photo(dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / "a.dng").write_bytes(b"no photo")
    (tmp_path / "night" / "b.dng").write_bytes(dark_dng.read_bytes())
    typed = [sys.executable, "-m", "lowlight", "enhance", str(tmp_path / "night"), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LOWLIGHT_WEIGHTS": str(tiny_weights)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(typed, env=environment, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.returncode == 1 and done.stdout.startswith("done     2/2")
    assert (tmp_path / "out" / "b.png").is_file()


@pytest.mark.skipif(os.name == "nt", reason="no shell that closes streams")
def test_a_service_without_stdout_gets_its_pictures(dark_dng: Path, tiny_weights: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LOWLIGHT_WEIGHTS": str(tiny_weights)}
    command = f"{sys.executable} -m lowlight enhance '{dark_dng}' -o '{tmp_path / 'out.png'}' >&-"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "out.png").is_file(), done.stderr


@pytest.mark.skipif(os.name == "nt", reason="no shell that closes streams")
def test_names_from_a_closed_stdin_are_no_names(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = f"{sys.executable} -m lowlight enhance - -o '{tmp_path}' <&-"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "lowlight: name at least one RAW file or folder\n")


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_a_signal_to_a_program_that_is_leaving_is_no_traceback() -> None:
    script = (
        "import atexit, os, signal, sys; from lowlight import cli\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "sys.argv = ['lowlight', '--version']; cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_no_utf_8_are_printed(dark_dng: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.dng"
    shutil.copy(dark_dng, name)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8:strict"}
    typed = [sys.executable, "-m", "lowlight", "inspect", name]
    done = subprocess.run(typed, env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and b"caf\\udce9.dng" in done.stdout, done.stderr


def test_wrong_use_of_eval_and_train_ends_with_2(tmp_path: Path) -> None:
    for typed in (["eval", "gone.csv"], ["eval", str(tmp_path), "--weights", "gone.safetensors"]):
        ended = lowlight(*typed)
        assert ended.returncode == 2 and "There is no" in ended.stderr
    ended = lowlight("train", "-o", str(tmp_path / "nothing"), "--resume")
    assert ended.returncode == 2 and "holds no run" in ended.stderr
