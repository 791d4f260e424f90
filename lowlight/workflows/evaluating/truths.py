"""The truth of a pair as the posterior of a network sees it in training."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.errors import DataError
from lowlight.core.restoration import ModelTraits
from lowlight.data.packed_set import half_truth
from lowlight.data.pairs import Pair
from lowlight.ops.color import apply_matrix, decode, encode
from lowlight.ops.tiling import TileGrid
from lowlight.raw.bayer import origin_padding
from lowlight.workflows.evaluating.validation import as_planes, gray_like


def padded_truth(pair: Pair, traits: ModelTraits, grid: TileGrid) -> Tensor:
    """A pair's truth as the posterior of a network sees it, `[C', u*h, u*w]` in [0, 1], as far as tiles reach.

    It is mirrored where they reach beyond it. Raises `DataError` where it has half the size that the network gives.
    """
    u = traits.upscale
    truth = _truth_planes(pair, u, traits.out_channels, camera=traits.output_colour == "camera")
    top, left = origin_padding(pair.frame.pattern) if u == 2 else (0, 0)
    height, width = (u * size for size in grid.padded)
    below, right = max(height - truth.shape[1] - top, 0), max(width - truth.shape[2] - left, 0)
    return torch.from_numpy(np.pad(truth, ((0, 0), (top, below), (left, right)), mode="reflect"))


def has_size(pair: Pair, traits: ModelTraits) -> bool:
    """Whether a pair's truth is large enough for the posterior of a network."""
    return traits.upscale == 1 or pair.truth.shape[:2] == pair.frame.size


def _truth_planes(pair: Pair, upscale: int, channels: int, *, camera: bool) -> npt.NDArray[np.float32]:
    """Give the truth as the network was trained on it: `[C', H, W]` in [0, 1], of its output's size and colours."""
    truth = pair.truth
    if upscale == 1:
        truth = half_truth(pair)
    elif truth.shape[:2] != pair.frame.size:
        raise DataError(
            f"the truth of {pair.name} has half the sensor's size; the posterior of this network sees full size"
        )
    if channels == 1:
        truth = gray_like(np.empty((1, 1, 1), np.uint16), truth)
    planes = as_planes(truth)
    matrix = pair.frame.camera_to_srgb
    if camera and matrix is not None:
        back = torch.from_numpy(np.linalg.inv(matrix.astype(np.float64)))
        planes = encode(apply_matrix(decode(planes.double()), back).clamp(0, 1)).float()
    return planes.numpy()
