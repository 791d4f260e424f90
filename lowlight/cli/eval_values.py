"""From what was typed after `lowlight eval` to what is scored."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import typer

from lowlight.core.errors import UsageError


def expect_folders(paths: Sequence[Path]) -> None:
    """Raise `UsageError` for a file to be written into a folder that is not there."""
    for path in paths:
        if not path.resolve().parent.is_dir():
            raise UsageError(f"There is no folder {path.resolve().parent} to write {path.name} into.")


def expect_inputs(data: Path | None, weights: Sequence[Path]) -> None:
    """Raise `UsageError` for a manifest or folder, or a weights file, that is not there."""
    if data is not None and not data.exists():
        raise UsageError(f"There is no manifest or folder {data}.")
    for path in weights:
        if path.suffix and not glob.has_magic(str(path)) and not path.exists():
            raise UsageError(f"There is no weights file {path}; `lowlight train` makes weights.")


def named_weights(
    context: typer.Context, weights: Sequence[Path] | None, model: str | None, baseline: str | None
) -> tuple[Path, ...]:
    """Choose what to score: the command line beats the environment, and only one of the three may be left.

    A shipped model's name is given as a path without a suffix; nothing is the default model, or the baseline.
    """
    given = {"weights": weights or None, "model": model, "baseline": baseline}
    named = {name: value for name, value in given.items() if value is not None}
    sources = {name: context.get_parameter_source(name) for name in named}
    typed = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    left = typed or list(named)
    if len(left) > 1:
        raise UsageError(f"Only one of {' and '.join(f'--{name}' for name in left)} can be scored at a time.")
    if not left or left[0] == "baseline":
        return ()
    return tuple(weights or ()) if left[0] == "weights" else (Path(model or ""),)


def frame_counts(text: str) -> tuple[int, ...]:
    """Numbers of frames with commas between, smallest first, each once; `UsageError` for what is none."""
    numbers = [number.strip() for number in text.split(",")]
    if not all(re.fullmatch("[1-9][0-9]{0,5}", number) for number in numbers):
        raise UsageError(f"--frames is {text!r}; expected numbers of frames with commas between, such as 1,2,4.")
    return tuple(sorted(set(map(int, numbers))))
