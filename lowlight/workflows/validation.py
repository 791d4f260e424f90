"""Scoring a network on pairs through the restorer, as evaluation does."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lowlight.data.pairs import Pair
from lowlight.metrics import METRICS
from lowlight.ops.resize import mean_of_blocks
from lowlight.restorer import Restorer


@dataclass(frozen=True)
class PairScore:
    """One pair's measures; a measure that does not apply is None."""

    dark: str
    scene: str
    ratio: float
    values: dict[str, float | None]


def measure(picture: npt.NDArray[np.uint16], truth: npt.NDArray[np.uint16]) -> dict[str, float | None]:
    """Every metric of uint16 pictures `[H, W, C]`; a truth of twice the size is brought to the picture's by 2x2
    averaging of encoded values, and likewise the other way round.
    """
    if truth.shape[0] >= 2 * picture.shape[0]:
        truth = mean_of_blocks(truth)
    elif picture.shape[0] >= 2 * truth.shape[0]:
        picture = mean_of_blocks(picture)
    # Rounding of odd sizes may leave one row or column more on either side.
    height, width = (min(a, b) for a, b in zip(picture.shape[:2], truth.shape[:2], strict=True))
    first, second = (_as_tensor(pixels[:height, :width]) for pixels in (picture, truth))
    values: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        value = metric.compute(first, second)
        values[name] = value if value is not None and np.isfinite(value) else None
    return values


def _as_tensor(pixels: npt.NDArray[np.uint16]) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(65535)).movedim(-1, 0)


def score_pair(restorer: Restorer, pair: Pair) -> PairScore:
    """Enhance the pair's dark frame by its ratio and measure it against its truth."""
    picture = restorer.photo(pair.frame, pair.ratio).pixels
    return PairScore(pair.name, pair.scene, pair.ratio, measure(picture, pair.truth))


def mean_scores(scores: list[PairScore]) -> dict[str, float]:
    """The mean of every measure over the pairs where it applies."""
    means = {}
    for name in METRICS:
        values = [s.values[name] for s in scores]
        present = [value for value in values if value is not None]
        if present:
            means[name] = float(np.mean(present))
    return means
