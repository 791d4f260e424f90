"""Where output goes when nobody reads it, and what it never replaces."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lowlight.cli.streams import visible
from lowlight.core.errors import UsageError
from lowlight.workflows.evaluating.own_inputs import refuse_strangers
from lowlight.workflows.training_log import TrainingLog

LOWLIGHT = f"'{sys.executable}' -m lowlight"


def unread(command: str, folder: Path) -> tuple[str, str]:
    """Exit code of a command whose output nobody reads, and what it said elsewhere."""
    script = f"{LOWLIGHT} {command} | (exec <&-; sleep 0.1); echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=300, check=True, cwd=folder, env=at_home()
    )
    return ended.stdout.strip(), ended.stderr


def at_home() -> dict[str, str]:
    """An environment in which this checkout is found from any folder."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def test_a_reader_that_has_enough_is_told_from_a_failure(tmp_path: Path) -> None:
    assert unread("models", tmp_path) == ("141", "")


@pytest.mark.parametrize("streams", ["", "2>&1"])
def test_photos_go_on_whoever_reads_of_them(dark_dng: Path, tiny_weights: Path, tmp_path: Path, streams: str) -> None:
    for number in range(3):
        shutil.copy(dark_dng, tmp_path / f"{number}.dng")
    (tmp_path / "broken.dng").touch()
    code, _ = unread(f"enhance . -o out --weights {tiny_weights} --device cpu {streams}", tmp_path)
    assert code == "1"  # one photo failed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.json", b"II*\0 \xff a photo"),
        ("package.json", b'{"name": "mine", "version": "1"}'),
        ("config.json", b'[model]\nname = "sid-net"\n'),
        ("names.csv", b"name,address,phone\n"),
        ("deep.json", b"[" * 100_000),
        ("notes.txt", b"do not lose"),
        ("pairs.csv", b"scene,split,dark,bright\n"),
        ("index.html", b"<html>mine</html>"),
    ],
)
def test_only_earlier_results_are_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} is no result of an earlier run"):
        refuse_strangers([tmp_path / name])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.json", b""),
        ("report.json", b' {"rows": [], "settings": {}}'),
        ("digits.json", b'{"table": []}'),
        ("bench.json", b'{"machine": {}, "rows": []}'),
        ("rows.jsonl", b'{"method": "a", "protocol": "half"}\n{"method": "b", "protocol": "half"}\n'),
        ("rows.csv", b"method,strategy,protocol,dark\n"),
        ("digits.csv", b"name,model\n"),
        ("index.html", b"<!doctype html> ... <footer>Made by lowlight 0.1.</footer>"),
    ],
)
def test_earlier_results_may_be_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refuse_strangers([tmp_path / name, tmp_path / "new.json", tmp_path])


def test_a_damaged_log_keeps_its_rows(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.append({"step": 1})
    with log.path.open("ab") as file:
        file.write(b'5\n[1]\n\xff\xfe\n{"step": "x"}\n{"step": null}\n' + 9999 * b"[" + b"\n" + 5000 * b"1" + b"\n")
    log.append({"step": 2})
    assert log.rows() == [{"step": 1}, {"step": 2}]
    log.keep_until(1)
    assert log.path.read_text() == '{"step": 1}\n'


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert visible("a\x1b[31m\x07b\nc\x9b ö") == r"a\x1b[31m\x07b\nc\x9b ö"


def test_the_log_of_a_run_that_diverged_is_json(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.append({"step": 1, "validation": {"sse": float("nan"), "kl": 2.0}, "loss": float("inf")})
    log.keep_until(1)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    row = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 1, "validation": {"sse": None, "kl": 2.0}, "loss": None}
