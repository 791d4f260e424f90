"""From 16 to 8 bits per channel."""

import numpy as np
import numpy.typing as npt

_BAND_ROWS = 64


def to_uint8(pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Round encoded uint16 pixels of any shape to the nearest of the 256 levels: exactly round(v / 257).

    257 is odd, so no value lies half-way between two levels.
    """
    levels = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _BAND_ROWS):  # the 32-bit copy stays small
        wide = pixels[top : top + _BAND_ROWS].astype(np.uint32)
        wide += 128
        wide //= 257
        levels[top : top + _BAND_ROWS] = wide
    return levels
