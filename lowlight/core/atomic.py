"""Files that appear whole or not at all: a hidden temporary name in the same folder, then a rename."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lowlight.core.errors import OutputError

_LEFTOVER = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.part")
_NAME_BYTES = 200  # of a final name that is kept in the temporary one: file systems stop at 255


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on a clean exit it takes the name `path`.

    On any error it is removed. A killed process leaves at most a file that `is_leftover` recognises, never a
    partial file called `path`. Safe for threads and for processes that share the folder. A link stays, and what it
    leads to is replaced. A pipe or a device is written to as it is: it yields itself.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    stem = os.fsencode(path.name)[:_NAME_BYTES].decode("utf-8", "ignore")
    temporary = path.with_name(f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # an interrupt must not leave the temporary file behind either
        with suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Bytes of a file name that are no UTF-8 are written as JSON escapes them.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror or error}.") from error


def is_leftover(path: Path) -> bool:
    """Whether `path` has a name that only an unfinished write has."""
    return _LEFTOVER.fullmatch(path.name) is not None
