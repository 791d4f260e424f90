"""Finished pictures as arrays: ground truths and results to be scored."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import BrokenFileError, DataError

# Decoders load inside the functions that use them: a machine that only trains has no imagecodecs.


def read_picture(path: Path, *, upright: bool = True) -> npt.NDArray[np.uint16]:
    """Read a PNG, TIFF, JPEG or JPEG XL as encoded uint16 `[H, W, C]`, C = 3, or 1 for gray; 65535 = white.

    8-bit values are scaled by 257, alpha is dropped, a JPEG is turned `upright` as its tag says. Raises
    BrokenFileError for a file that is missing or does not decode, DataError for a picture of another kind.
    """
    decode = READERS.get(path.suffix.lower())
    if decode is _read_jpeg:
        decode = partial(_read_jpeg, upright=upright)
    if decode is None:
        raise DataError(f"{path} is no picture this can read; the suffixes are {', '.join(READERS)}.")
    if not path.is_file():
        raise BrokenFileError(f"There is no picture file at {path}; check the name.")
    try:
        pixels = decode(path)
    except DataError:
        raise
    except Exception as error:  # decoders raise what they like on a broken file
        raise BrokenFileError(f"{path} does not decode as {path.suffix.lower()}: {error}.") from error
    return _as_uint16(pixels, path)


def _as_uint16(pixels: npt.NDArray[np.generic], path: Path) -> npt.NDArray[np.uint16]:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or not pixels.size:
        raise DataError(f"{path} holds an array of shape {pixels.shape}, expected one gray or RGB picture.")
    if pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype == np.uint16:
        return np.ascontiguousarray(pixels, dtype=np.uint16)
    raise DataError(f"{path} holds {pixels.dtype} values, expected 8 or 16 bits per channel; convert it first.")


def _read_png(path: Path) -> npt.NDArray[np.generic]:
    import imagecodecs

    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def _read_jxl(path: Path) -> npt.NDArray[np.generic]:
    import imagecodecs

    return np.asarray(imagecodecs.jpegxl_decode(path.read_bytes()))


def _read_tiff(path: Path) -> npt.NDArray[np.generic]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        if kind not in ("RGB", "MINISBLACK", "YCBCR"):
            raise DataError(f"{path} is a TIFF of kind {kind}, expected gray or RGB.")
        pixels = np.asarray(page.asarray())
        planar = pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    return np.moveaxis(pixels, 0, -1) if planar else pixels


def _read_jpeg(path: Path, *, upright: bool = True) -> npt.NDArray[np.generic]:
    import imageio.v3 as iio

    with iio.imopen(path, "r", plugin="pillow") as file:
        mode = file.metadata()["mode"]
        if mode not in ("RGB", "L"):
            raise DataError(f"{path} is a JPEG of kind {mode}, expected gray or RGB.")
        # The Pillow plugin's own argument, of which the types of `imopen` do not know.
        return np.asarray(file.read(index=0, rotate=upright))  # type: ignore[call-arg]


READERS: dict[str, Callable[[Path], npt.NDArray[np.generic]]] = {
    ".png": _read_png,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".jpg": _read_jpeg,
    ".jpeg": _read_jpeg,
    ".jxl": _read_jxl,
}
