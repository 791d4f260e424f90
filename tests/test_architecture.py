"""The floor plan: who may import whom, and what nobody may do."""

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lowlight"
FLOORS = {
    "core": 1,
    "ops": 2,
    "raw": 3,
    "models": 4,
    "objectives": 4,
    "data": 4,
    "metrics": 4,
    "writers": 4,
    "report": 4,
    "burst": 4,
    "tile_batches": 4,
    "checkpoint": 5,
    "tile_source": 5,
    "views": 5,
    "detail": 5,
    "resident": 6,
    "restorer": 6,
    "device_restorer": 7,
    "hypotheses": 7,
    "workflows": 8,
    "cli": 9,
    "__main__": 10,
}
MOST_LINES = 320
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str | None:
    """The part of the package a module stands in; None for the package itself, which has only the version."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative imports hide where an arrow leads"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names if node.module == "lowlight")


def broken_arrow(source: str, target: str) -> str | None:
    """What is wrong with one module of ours importing another, None where nothing is."""
    here, there = room(source), room(target)
    if there is None or here == there:
        return None
    if here is None:
        return "the package itself imports nothing of its parts"
    if FLOORS[there] > FLOORS[here]:
        return "an arrow goes up"
    return "rooms of one floor do not know each other" if FLOORS[there] == FLOORS[here] else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_arrows_only_go_down(path: Path) -> None:
    source = module_name(path)
    for target in imports(path):
        if target.split(".")[0] == "lowlight" and (room(target) in FLOORS or room(target) is None):
            assert broken_arrow(source, target) is None, f"{source} imports {target}: {broken_arrow(source, target)}"


def test_no_two_workflows_need_each_other() -> None:
    needs: dict[str, set[str]] = {}
    for path in (PACKAGE / "workflows").rglob("*.py"):
        here = path.relative_to(PACKAGE / "workflows").parts[0].removesuffix(".py")
        used = {target.split(".")[2] for target in imports(path) if target.startswith("lowlight.workflows.")}
        needs.setdefault(here, set()).update(used - {here})
    list(TopologicalSorter(needs).static_order())  # raises CycleError, which names the workflows


def test_every_part_has_its_floor() -> None:
    parts = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert parts - {"__init__", "lowlight"} <= set(FLOORS)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("lowlight.core.photo", "lowlight.ops.color"),
        ("lowlight.data.noise", "lowlight.writers"),
        ("lowlight.restorer", "lowlight.workflows.enhancing.enhance"),
        ("lowlight", "lowlight.core.errors"),
    ],
)
def test_wrong_arrows_are_seen(source: str, target: str) -> None:
    assert broken_arrow(source, target)
    assert broken_arrow(target, source) is None or FLOORS[room(source) or "core"] == FLOORS[room(target) or "core"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_every_module_imports(path: Path) -> None:
    if path.name != "__main__.py":
        importlib.import_module(module_name(path))


def test_only_the_raw_room_talks_to_rawpy() -> None:
    talking = {module_name(path) for path in FILES if "rawpy" in {name.split(".")[0] for name in imports(path)}}
    assert talking and {room(module) for module in talking} == {"raw"}


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if room(module_name(path)) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(named, ast.Name) and named.id == "print"), f"{path}:{named.lineno} prints"


def test_files_are_no_longer_than_one_idea() -> None:
    too_long = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: lines for name, lines in too_long.items() if lines > MOST_LINES}


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_help_needs_no_torch_and_no_raw_library() -> None:
    heavy = ("torch", "rawpy", "skimage", "scipy", "imagecodecs", "tifffile", "safetensors", "PIL")
    loaded = python(f"import lowlight.cli, sys; print([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_reading_and_writing_need_no_torch_training_and_scoring_digits_no_raw_library() -> None:
    seen = python("import lowlight.raw.exif, lowlight.writers, sys; print('torch' in sys.modules)")
    assert seen.strip() == "False"
    heavy = ("rawpy", "imagecodecs", "isal")
    for module in ("workflows.training.train", "workflows.evaluating.image_models"):
        seen = python(f"import lowlight.{module}, sys; print([name for name in {heavy} if name in sys.modules])")
        assert seen.strip() == "[]", module
