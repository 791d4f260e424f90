"""Sets of small pictures prepared once: plain numpy arrays in one `.npz` file."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError


def write_prepared(path: Path, arrays: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Write named arrays of bytes; the file appears whole or not at all."""
    if path.suffix != ".npz":
        raise DataError(f"{path} is not the name of a prepared set; let it end in .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:  # a file, for savez would append its suffix to a name
            np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs take the names for its own arguments
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_prepared(path: Path, ranks: Mapping[str, int], name: str) -> dict[str, npt.NDArray[np.uint8]]:
    """Read the arrays that `ranks` names, each non-empty and of its rank; anything else raises `DataError`."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the folder of {name}'s pictures, or a prepared .npz file")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ranks}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no prepared set of {name} ({error}); prepare it again") from error
    for key, rank in ranks.items():
        array = arrays[key]
        if array.dtype != np.uint8 or array.ndim != rank or not array.size:
            raise DataError(
                f"{key} in {path} is {array.dtype} of shape {array.shape}; expected bytes in {rank} dimensions"
            )
    return arrays
