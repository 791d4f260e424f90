"""Turning pictures upright, and finding a window of the upright picture on the sensor."""

import numpy as np
import numpy.typing as npt

TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
MIRRORED_ROWS = (3, 4, 7, 8)
MIRRORED_COLS = (2, 3, 6, 7)


def turn_upright(pixels: npt.NDArray[np.uint16], orientation: int) -> npt.NDArray[np.uint16]:
    """Apply an EXIF orientation (1 to 8) to `[H, W, C]`; the result is contiguous."""
    if orientation in TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in MIRRORED_ROWS else 1
    cols = -1 if orientation in MIRRORED_COLS else 1
    return np.ascontiguousarray(pixels[::rows, ::cols])


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width of the upright picture of a sensor of `size` (height, width)."""
    return (size[1], size[0]) if orientation in TRANSPOSED else size


def window_on_sensor(
    window: tuple[int, int, int, int], size: tuple[int, int], orientation: int
) -> tuple[int, int, int, int]:
    """Where `(x, y, width, height)` of the upright picture lies on a sensor of `size` (height, width).

    Returned in the same order, in sensor pixels.
    """
    x, y, width, height = window
    rows, cols = upright_size(size, orientation)
    if orientation in MIRRORED_ROWS:
        y = rows - y - height
    if orientation in MIRRORED_COLS:
        x = cols - x - width
    return (y, x, height, width) if orientation in TRANSPOSED else (x, y, width, height)
