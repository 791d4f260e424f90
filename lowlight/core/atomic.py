"""Files that appear whole or not at all: a hidden temporary name in the same folder, then a rename."""

import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lowlight.core.errors import OutputError

logger = logging.getLogger(__name__)

_LEFTOVER = re.compile(r"\.(.+)\.(\d+)-[0-9a-f]{8}\.part", re.DOTALL)
_NAME_BYTES = 200  # of a final name that is kept in the temporary one: file systems stop at 255
_SAFE_AGE_S = 24 * 3600.0


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
    temporary = path.with_name(f".{_kept_name(path.name)}.{os.getpid()}-{secrets.token_hex(4)}.part")
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
    return leftover_of(path) is not None


def leftover_of(path: Path) -> str | None:
    """The name that an unfinished write would have got, of a long one its beginning; None of other files."""
    found = _LEFTOVER.fullmatch(path.name)
    return found[1] if found else None


def remove_leftovers(outputs: Iterable[Path]) -> None:
    """Remove unfinished files of these very outputs; those of a process that still runs are left alone.

    Others in the same folders are left alone too: another machine may be writing them. Call it before anything is
    written, since a file with this process's number is then of an earlier process that had the same one.
    """
    by_folder: dict[Path, set[str]] = {}
    for output in outputs:
        by_folder.setdefault(output.parent, set()).add(output.name)
    for folder, names in by_folder.items():
        kept = {_kept_name(name) for name in names}
        with suppress(OSError), os.scandir(folder) as entries:
            for path in [Path(entry.path) for entry in entries if entry.name.endswith(".part")]:
                found = _LEFTOVER.fullmatch(path.name)
                if found and found[1] in kept and not _is_being_written(path, int(found[2])):
                    logger.info("removing %s, which an earlier run has left unfinished", path)
                    path.unlink(missing_ok=True)


def _kept_name(name: str) -> str:
    """What of a final name is in the temporary one."""
    return os.fsencode(name)[:_NAME_BYTES].decode("utf-8", "ignore")


def _is_being_written(path: Path, process: int) -> bool:
    if process == os.getpid():
        return False
    if os.name == "nt":  # there a process cannot be asked without harm
        return time.time() - path.stat().st_mtime < _SAFE_AGE_S
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's, or no number of this machine's
    return True
