"""Scoring a network on pairs through the restorer, as evaluation does."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lowlight.core.errors import DataError
from lowlight.data.pairs import Pair
from lowlight.metrics import METRICS
from lowlight.ops.color import luma
from lowlight.ops.resize import mean_of_blocks
from lowlight.restorer import Restorer

Pixels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class PairScore:
    """One pair's measures; a measure that does not apply is None."""

    dark: str
    scene: str
    ratio: float
    values: dict[str, float | None]


def match_sizes(picture: Pixels, truth: Pixels) -> tuple[Pixels, Pixels]:
    """Bring two uint16 pictures `[H, W, C]` to one size: the larger by 2x2 means of its encoded values.

    Rounding of odd sizes may leave one row or column more on either side, which is cut. Any other difference
    raises `DataError`.
    """
    if _is_twice(truth, picture):
        truth = mean_of_blocks(truth)
    elif _is_twice(picture, truth):
        picture = mean_of_blocks(picture)
    pairs = list(zip(picture.shape[:2], truth.shape[:2], strict=True))
    if picture.shape[2] != truth.shape[2] or any(abs(a - b) > 1 for a, b in pairs):
        raise DataError(
            f"a picture of {_size(picture)} cannot be compared with one of {_size(truth)}; "
            "expected the same channels and the same size, or twice the size"
        )
    height, width = (min(pair) for pair in pairs)
    return picture[:height, :width], truth[:height, :width]


def _is_twice(large: Pixels, small: Pixels) -> bool:
    """Whether sizes differ by a factor of two, rounded either way and with a mirrored row or column."""
    shapes = zip(large.shape[:2], small.shape[:2], strict=True)
    return large.shape[:2] != small.shape[:2] and all(abs(a - 2 * b) <= 2 for a, b in shapes)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]} pixels and {pixels.shape[2]} channels"


def measure(picture: Pixels, truth: Pixels) -> dict[str, float | None]:
    """Every metric of two uint16 pictures `[H, W, C]`, sizes matched; what does not apply or is infinite is None.

    A gray picture is compared with the truth's luma.
    """
    first, second = (as_planes(pixels) for pixels in match_sizes(picture, gray_like(picture, truth)))
    values: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        value = metric(first, second)
        values[name] = value if value is not None and np.isfinite(value) else None
    return values


def gray_like(picture: Pixels, truth: Pixels) -> Pixels:
    """Give the truth as its luma where the picture is gray and the truth is not; uint16 `[H, W, C]` both."""
    if picture.shape[2] != 1 or truth.shape[2] != 3:
        return truth
    return np.asarray(luma(as_planes(truth)).movedim(0, -1).numpy() * 65535 + 0.5).astype(np.uint16)


def as_planes(pixels: Pixels) -> torch.Tensor:
    """Pictures as the metrics take them: uint16 `[H, W, C]` to float32 `[C, H, W]` in [0, 1]."""
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
