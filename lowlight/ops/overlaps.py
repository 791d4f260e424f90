"""How tiles share the pixels of a merged picture, and what that does to how far their draws deviate.

Averaging n draws that know nothing of each other leaves 1 / sqrt(n) of their deviation, so that a picture merged from
tiles deviates less wherever tiles overlap. Dividing by what averaging leaves keeps the deviation as it is in one tile.
Source: E. Heitz and F. Neyret, High-Performance By-Example Noise using a Histogram-Preserving Blending Operator, HPG
2018, variance-preserving blending; here for draws that agree in part.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Overlaps:
    """Tiles of `weights [t, t]` at `rows` and `cols` of a picture `width` wide, all in its pixels."""

    def __init__(self, rows: tuple[int, ...], cols: tuple[int, ...], width: int, weights: FloatArray) -> None:
        self._rows, self._tile = rows, len(weights)
        # Every row of tiles has the same columns.
        self._weight = np.zeros((self._tile, width), np.float32)
        self._square = np.zeros_like(self._weight)
        for col in cols:
            self._weight[:, col : col + self._tile] += weights
            self._square[:, col : col + self._tile] += np.square(weights)

    def share(self, start: int, stop: int) -> FloatArray:
        """Sum of squared weights by the squared sum, `[stop - start, width]`: 1 for one tile, 1/n for n alike.

        Rows `start` to `stop` must be covered by tiles.
        """
        weight = np.zeros((stop - start, self._weight.shape[1]), np.float32)
        square = np.zeros_like(weight)
        for row in self._rows:
            low, high = max(start, row), min(stop, row + self._tile)
            if low < high:
                weight[low - start : high - start] += self._weight[low - row : high - row]
                square[low - start : high - start] += self._square[low - row : high - row]
        return np.asarray(square / np.square(weight))


def kept_deviation(share: FloatArray, agreement: float) -> FloatArray:
    """What averaging leaves of the deviation of tiles, two of which correlate by `agreement`."""
    return np.asarray(np.sqrt((1 - agreement) * share + agreement), dtype=np.float32)
