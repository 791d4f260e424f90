"""From what is typed after `lowlight enhance` to values; what cannot be read so raises `UsageError`."""

import codecs
import os
import sys
from pathlib import Path

from lowlight.core.errors import UsageError


def listed_names(paths: list[str], from_file: Path | None) -> list[str]:
    """The names a command means: its arguments, `-` for those on stdin, and those in a list."""
    names: list[str] = []
    for path in paths:
        names += _lines(_stdin()) if path == "-" else [path]
    if from_file is not None:
        try:
            names += _lines(_stdin() if str(from_file) == "-" else from_file.read_bytes())
        except OSError as error:
            raise UsageError(f"cannot read the list {from_file}: {error.strerror}") from error
    return [name for name in names if name.strip()]


def _stdin() -> bytes:
    return sys.stdin.buffer.read()


def _lines(listed: bytes) -> list[str]:
    """File names, one per line or each ended by a zero byte, as they are on disk."""
    text = os.fsdecode(listed.removeprefix(codecs.BOM_UTF8))
    return text.split("\0") if "\0" in text else [line.removesuffix("\r") for line in text.split("\n")]


def format_suffix(text: str | None) -> str | None:
    """The suffix of a format's name, with or without its dot."""
    return None if text is None else "." + text.strip().lower().lstrip(".")


def ratio_value(text: str) -> str | float:
    """`auto`, `same` or a number."""
    if text in ("auto", "same"):
        return text
    return _numbers(text, 1, "--ratio", "auto, same or a number above 0")[0]


def balance_value(text: str) -> str | tuple[float, float, float]:
    """`camera`, `auto`, `daylight` or three gains."""
    if text in ("camera", "auto", "daylight"):
        return text
    r, g, b = _numbers(text, 3, "--wb", "camera, auto, daylight or three gains above 0, as in 2.1,1,1.6")
    return r, g, b


def crop_value(text: str | None) -> tuple[int, int, int, int] | None:
    """Four whole numbers."""
    if text is None:
        return None
    values = _numbers(text, 4, "--crop", "X,Y,W,H in whole pixels")
    if any(value != int(value) for value in values):
        raise UsageError(f"--crop is {text!r}; expected X,Y,W,H in whole pixels")
    x, y, width, height = (int(value) for value in values)
    return x, y, width, height


def _numbers(text: str, count: int, option: str, wanted: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) < 1e9 for value in values):
        raise UsageError(f"{option} is {text!r}; expected {wanted}")
    return values
