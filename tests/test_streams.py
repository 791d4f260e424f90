"""Where output goes when nobody reads it, and what it never replaces."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lowlight.core.errors import UsageError
from lowlight.workflows.evaluating.own_inputs import refuse_strangers
from lowlight.workflows.training.log import TrainingLog

LOWLIGHT = f"'{sys.executable}' -m lowlight"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell with pipes")
def test_a_reader_that_has_enough_is_no_error() -> None:
    script = f"{LOWLIGHT} models | (exec <&-; sleep 0.1); echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.json", b"II*\0 a photo"),
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
        ("report.json", b' {"rows": []}'),
        ("rows.jsonl", b'{"method": "a"}\n'),
        ("rows.csv", b"method,strategy\n"),
        ("digits.csv", b"name,model\n"),
        ("index.html", b"<!doctype html> ... <footer>Made by lowlight 0.1.</footer>"),
    ],
)
def test_earlier_results_may_be_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refuse_strangers([tmp_path / name, tmp_path / "new.json", tmp_path])


def test_the_log_of_a_run_that_diverged_is_json(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.append({"step": 1, "validation": {"sse": float("nan"), "kl": 2.0}, "loss": float("inf")})
    log.keep_until(1)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    row = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 1, "validation": {"sse": None, "kl": 2.0}, "loss": None}
