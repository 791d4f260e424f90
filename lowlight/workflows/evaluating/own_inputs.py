"""Refusing, before any work, to write over what a command reads or has not written itself."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from lowlight.core.errors import UsageError

RESULTS = frozenset((".csv", ".html", ".json", ".jsonl", ".zip"))  # what earlier commands may have left in a folder

# Keys of a report on one method, on several and on networks, of a benchmark, and of rows of photos and of networks.
_KINDS = (
    {"rows", "settings"},
    {"methods", "settings"},
    {"table"},
    {"rows", "machine"},
    {"method", "protocol"},
    {"name", "model"},
)


def refuse_own_inputs(outputs: Iterable[Path], inputs: Collection[Path]) -> None:
    """Raise `UsageError` where a file to be written is one of the inputs, or lies in one that is a folder.

    Results of an earlier command may lie in such a folder, and are replaced.
    """
    for output in outputs:
        if output.exists() and any(_is_read(output, path) for path in inputs):
            raise UsageError(f"{output} would replace a file that it is made from; choose another name")


def refuse_strangers(outputs: Iterable[Path]) -> None:
    """Raise `UsageError` where a report or table would replace a file that is no earlier one."""
    for output in outputs:
        if output.is_file() and not _is_a_result(output):
            raise UsageError(f"{output} is no result of an earlier run, and is left alone; choose another name")


def _is_a_result(path: Path) -> bool:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    if not content.strip() or "<footer>Made by lowlight " in content:
        return True
    first = content.split("\n", 1)[0]
    return any(kind <= keys for keys in (_keys(content), _keys(first), set(first.split(","))) for kind in _KINDS)


def _keys(text: str) -> set[str]:
    """The keys of a JSON object, or of the first one in a list."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return set()
    if isinstance(value, list) and value:
        value = value[0]
    return set(value) if isinstance(value, dict) else set()


def _is_read(output: Path, path: Path) -> bool:
    if not path.exists():
        return False
    within = path.is_dir() and output.suffix.lower() not in RESULTS
    return output.samefile(path) or (within and path.resolve() in output.resolve().parents)
