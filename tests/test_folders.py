"""Folders that cannot be used, and folders in which another process is at work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_material import tiny_run, write_packed

from lowlight.core.errors import DataError, OutputError, UsageError
from lowlight.core.folders import check_writable, make_folder, working_alone
from lowlight.workflows.training.train import train

ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import sys
from pathlib import Path
from lowlight.core.folders import working_alone

with working_alone(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("packed"))


def test_a_folder_that_cannot_be_is_found_out_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    check_writable(tmp_path / "new" / "deeper")
    for refused in (check_writable, make_folder):
        with pytest.raises(OutputError, match="cannot be made"):
            refused(tmp_path / "file" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="no such locks")
def test_one_run_at_a_time_works_in_a_folder(packed: Path, tmp_path: Path) -> None:
    config = tiny_run(packed, steps=1)
    with working_alone(tmp_path), pytest.raises(UsageError, match=f"another process is at work in {tmp_path}"):
        train(config, tmp_path)
    assert not list(tmp_path.iterdir())
    train(config, tmp_path)
    with working_alone(tmp_path), pytest.raises(UsageError, match="another process is at work"):
        train(tiny_run(packed, steps=2), tmp_path, resume=True)


@pytest.mark.skipif(os.name == "nt", reason="no such locks")
def test_a_killed_process_keeps_nobody_out(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    typed = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(typed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(UsageError, match="another process is at work"), working_alone(tmp_path):
            pass
        other.kill()
    with working_alone(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_refused_run_leaves_no_folder(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        train(tiny_run(packed.parent / "gone", steps=1), tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"cannot be made, because .*file is a file"):
        train(tiny_run(packed, steps=1), tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_is_at_its_end_says_so(packed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_run(packed, steps=1)
    train(config, tmp_path)
    assert not caplog.messages
    train(config, tmp_path, resume=True)
    assert caplog.messages == [f"{tmp_path} has had its 1 steps already; name more to go on"]
