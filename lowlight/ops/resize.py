"""Half-size pictures."""

import numpy as np
import numpy.typing as npt


def mean_of_blocks(pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Half the size by 2x2 means of the values as they are, rounded; uint16 `[H, W, C]` to `[H//2, W//2, C]`."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    total = pixels[0:height:2, 0:width:2].astype(np.uint32)
    for row, col in ((0, 1), (1, 0), (1, 1)):
        total += pixels[row:height:2, col:width:2]
    return ((total + 2) >> 2).astype(np.uint16)
