"""Sets of small pictures prepared once: plain numpy arrays in one `.npz` file."""

import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from lowlight.core.atomic import replacing
from lowlight.core.errors import DataError
from lowlight.data.archives import read_arrays

Bytes = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]  # pictures read, pictures in all


class Rows(NamedTuple):
    """An array of bytes `[number, *shape]` whose items are made one after another while they are written."""

    number: int
    shape: tuple[int, ...]
    items: Iterable[Bytes]

    @classmethod
    def of(cls, array: Bytes) -> "Rows":
        """An array that is there already."""
        return cls(len(array), array.shape[1:], array)


@dataclass(frozen=True)
class Plan:
    """What preparing a set will take, known before any picture is read, and how to do it.

    `write` makes the file, tells how many pictures were read, and gives the number of items of each array.
    """

    pictures: int  # that are read
    bytes: int  # of the file, at most
    write: Callable[[Path, Progress | None], dict[str, int]]


def array_bytes(count: int, shape: tuple[int, ...]) -> int:
    """Size of an array of bytes with so many items of a shape."""
    return count * math.prod(shape)


def write_prepared(path: Path, arrays: Mapping[str, Rows]) -> dict[str, int]:
    """Write named arrays of bytes and give their lengths; the file appears whole or not at all.

    Items go to the file as they are made, so memory does not grow with their number.
    """
    check_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for key, rows in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                    _write_rows(file, rows)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); choose another place") from error
    return {key: rows.number for key, rows in arrays.items()}


def check_name(path: Path) -> None:
    """Refuse a name that no prepared set has, with a `DataError`."""
    if path.suffix != ".npz":
        raise DataError(f"{path} is not the name of a prepared set; let it end in .npz")


def read_prepared(path: Path, ranks: Mapping[str, int], name: str) -> dict[str, Bytes]:
    """Read the arrays that `ranks` names, each non-empty and of its rank; anything else raises `DataError`.

    A file that does not decode raises `BrokenFileError`.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the folder of {name}'s pictures, or a prepared .npz file")
    arrays = read_arrays(path, ranks, f"prepare {name} again")
    for key, rank in ranks.items():
        array = arrays[key]
        if array.dtype != np.uint8 or array.ndim != rank or not array.size:
            raise DataError(
                f"{key} in {path} is {array.dtype} of shape {array.shape}; expected bytes in {rank} dimensions"
            )
    return arrays


def _write_rows(file: IO[bytes], rows: Rows) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (rows.number, *rows.shape)}
    )
    written = 0
    for item in rows.items:
        assert item.dtype == np.uint8 and item.shape == rows.shape, (item.dtype, item.shape, rows.shape)
        file.write(item.tobytes())
        written += 1
    assert written == rows.number, (written, rows.number)
