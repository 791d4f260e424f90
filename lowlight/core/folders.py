"""Folders that are made, and folders in which one process at a time may work."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lowlight.core.errors import OutputError, UsageError


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; `OutputError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """Find out before the work, not after it, whether a folder can be made and written to."""
    existing = Path(os.path.abspath(folder))
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise OutputError(f"the folder {folder} cannot be made, because {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"nothing can be written to {existing}; choose another folder, or ask for permission")


@contextmanager
def working_alone(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder; `UsageError` where one of them is at work there.

    The folder itself is locked, so that nothing is left behind, not even by a process that was killed. File systems
    without such locks let everybody in.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process is at work in {folder}; wait until it has ended, or choose another folder"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(opened)
