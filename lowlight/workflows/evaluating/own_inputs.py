"""Refusing, before any work, to write over what a command reads or has not written itself."""

import codecs
from collections.abc import Collection, Iterable
from pathlib import Path

from lowlight.core.errors import UsageError

RESULTS = frozenset((".csv", ".html", ".json", ".jsonl", ".zip"))  # what earlier commands may have left in a folder

_HEAD_BYTES = 1 << 16
_FIRST_COLUMNS = (b"method", b"name")  # of rows of photos, and of networks on finished pictures


def refuse_own_inputs(outputs: Iterable[Path], inputs: Collection[Path]) -> None:
    """Raise `UsageError` where a file to be written is one of the inputs, or lies in one that is a folder.

    Results of an earlier command may lie in such a folder, and are replaced.
    """
    for output in outputs:
        if output.exists() and any(_is_read(output, path) for path in inputs):
            raise UsageError(f"{output} would replace a file that it is made from; choose another name")


def refuse_strangers(outputs: Iterable[Path]) -> None:
    """Raise `UsageError` where a report or table would replace a file that does not look like an earlier one.

    JSON counts as one, a CSV file whose first column is that of rows, and a page that says who made it.
    """
    for output in outputs:
        if output.is_file() and not _looks_like_a_result(output):
            raise UsageError(f"{output} is no result of an earlier run, and is left alone; choose another name")


def _looks_like_a_result(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        file.seek(max(path.stat().st_size - _HEAD_BYTES, 0))
        tail = file.read()
    if path.suffix.lower() == ".csv":
        return not head or head.split(b",")[0] in _FIRST_COLUMNS
    if path.suffix.lower() == ".html":
        return not head or b"Made by lowlight" in tail
    return not head or head[:1] in b"{["


def _is_read(output: Path, path: Path) -> bool:
    if not path.exists():
        return False
    within = path.is_dir() and output.suffix.lower() not in RESULTS
    return output.samefile(path) or (within and path.resolve() in output.resolve().parents)
