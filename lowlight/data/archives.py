"""Reading zip files and numpy archives of which anything may be broken."""

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import BrokenFileError, DataError

# What zipfile and numpy raise on files that are empty, cut short, of another kind or changed.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    NotImplementedError,  # a way of compressing that zipfile does not know
    SyntaxError,
    RuntimeError,  # a member that claims to be encrypted
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # numpy reads an array's header as Python
)


class Archive:
    """A zip file that stays open, so that its directory is read once.

    Raises `DataError` where it does not exist or is no zip file of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise DataError(f"{path} does not exist; give a folder of photos or a packed file") from error
        except UNREADABLE as error:
            raise DataError(f"{path} is no packed file ({error}); make one with `lowlight pack`") from error

    def names(self, folder: str) -> list[str]:
        """The members whose names begin with `folder`."""
        return [name for name in self._zip.namelist() if name.startswith(folder)]

    def read(self, member: str) -> bytes:
        """A member's bytes; `DataError` where they are not those that were packed."""
        try:
            return self._zip.read(member)
        except UNREADABLE as error:
            raise DataError(f"{member} in {self.path} cannot be read ({error}); pack it again") from error


def read_arrays(path: Path, names: Iterable[str], hint: str) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of an `.npz` file by name; `BrokenFileError`, which ends with `hint`, where that cannot be done."""
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise BrokenFileError(f"{path} cannot be read as numpy arrays (no .npz archive); {hint}")
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in names if name not in stored]
            if missing:
                raise BrokenFileError(f"{path} has no array {missing[0]!r}; {hint}")
            return {name: stored[name] for name in names}
    except UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise BrokenFileError(f"{path} cannot be read as numpy arrays ({reason}); {hint}") from error
