"""The documentation says what the program does."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from lowlight.cli import app
from lowlight.workflows.training.config import load_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETUP = (
    "python -m venv .venv && . .venv/bin/activate && pip install . && lowlight demo demo-out",
    "python -m venv .venv && . .venv/bin/activate && pip install -e '.[test]' && pytest",
)
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", SETUP)
def test_each_set_up_is_one_command(line: str) -> None:
    assert line in README.splitlines()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_a_line_in_the_readme(name: str) -> None:
    assert f"| `lowlight {name}` |" in README
    assert COMMANDS[name].help


def test_every_command_line_in_the_readme_parses() -> None:
    blocks = "\n".join(README.split("```")[1::2])
    lines = [line.split("#")[0].split() for line in blocks.splitlines() if line.startswith("lowlight ")]
    assert len(lines) > 8
    for _, name, *words in lines:
        options = {option for p in COMMANDS[name].params for option in (*p.opts, *p.secondary_opts)}
        used = [word for word in words if re.match(r"--?[a-z]", word)]
        assert set(used) <= options, (name, used)


def test_the_readme_links_to_files_that_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.toml")), ids=lambda path: path.stem)
def test_example_configurations_load(path: Path) -> None:
    load_config(path, {})


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example_scripts_explain_themselves(path: Path) -> None:
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_version_is_in_the_changelog() -> None:
    from lowlight import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_torch_stays_within_what_the_project_was_tried_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "torch>=2.8,<2.14" in project["dependencies"]
    assert not any(name.startswith("torchvision") for name in project["dependencies"])


def test_git_does_not_ignore_the_shipped_weights() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = [str(path) for path in (ROOT / "weights").glob("*.safetensors")]
    if files:
        done = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 1
