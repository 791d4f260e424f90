"""Refusing, before any work, to write over what a command reads."""

from collections.abc import Collection, Iterable
from pathlib import Path

from lowlight.core.errors import UsageError

RESULTS = frozenset((".csv", ".html", ".json", ".jsonl", ".zip"))  # what earlier commands may have left in a folder


def refuse_own_inputs(outputs: Iterable[Path], inputs: Collection[Path]) -> None:
    """Raise `UsageError` where a file to be written is one of the inputs, or lies in one that is a folder.

    Results of an earlier command may lie in such a folder, and are replaced.
    """
    for output in outputs:
        if output.exists() and any(_is_read(output, path) for path in inputs):
            raise UsageError(f"{output} would replace a file that it is made from; choose another name")


def _is_read(output: Path, path: Path) -> bool:
    if not path.exists():
        return False
    within = path.is_dir() and output.suffix.lower() not in RESULTS
    return output.samefile(path) or (within and path.resolve() in output.resolve().parents)
