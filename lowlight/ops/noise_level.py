"""How noisy a frame is, told from the frame alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from lowlight.ops.exposure import block_means

BLOCK_PX = 16
NEARLY_WHITE = 0.9  # what clips there makes noise look small
BINS, SMALLEST_BIN = 24, 8  # blocks are sorted by their light; at the bright end, where there are few, bins are finer
CALM = 0.1  # quantile of a bin's variances: content adds to them, so the lowest are the noise's
CALM_FACTOR = 1.1  # what that quantile is too low by, of 16 x 16 pixels
ROUNDS = 3
LEAST_READ = 1e-10


class NoiseLevel(NamedTuple):
    """Variance of a pixel's noise, `shot * light + read`; light and variance in units of white."""

    shot: float
    read: float


UNKNOWN = NoiseLevel(0.0, 1.0)  # too little was seen: anything may be noise


def noise_points(signed: Tensor) -> tuple[Tensor, Tensor]:
    """Light and variance `[n]` of the blocks of packed rows `[4, h, w]`, which must not be clipped at black.

    Variances are those of the finest diagonal details of the difference of the two greens, where content leaves little.
    """
    first, second = signed[1:2], signed[3:4]
    part = first - second
    mixed = part[:, 1:, 1:] - part[:, :-1, 1:] - part[:, 1:, :-1] + part[:, :-1, :-1]
    variance = block_means(mixed.square() / 8, BLOCK_PX)
    light = block_means((first + second)[:, 1:, 1:] / 2, BLOCK_PX)
    return light.flatten(), variance.flatten()


def fit_noise(light: Tensor, variance: Tensor) -> NoiseLevel:
    """The noise of a frame from the points of its blocks: a line below which hardly any bin lies."""
    dark = light < NEARLY_WHITE
    light, variance = light[dark], variance[dark]
    if len(light) < SMALLEST_BIN:
        return UNKNOWN
    order = light.argsort()
    cut = len(order) * (BINS - 1) // BINS
    top = max((len(order) - cut) // 4, SMALLEST_BIN)
    bins = [each for each in (*order[:cut].tensor_split(BINS - 1), *torch.split(order[cut:], top)) if len(each)]
    levels = torch.stack([light[each].mean() for each in bins]).double()
    calm = torch.stack([variance[each].quantile(CALM) for each in bins]).double().clamp_(min=1e-14) * CALM_FACTOR
    weights = 1 / calm
    shot, read = 0.0, LEAST_READ
    for _ in range(ROUNDS):
        shot, read = _line(levels, calm, weights)
        fitted = (shot * levels + read).clamp(min=1e-14)
        # What lies above is content, and counts less.
        weights = torch.where(calm > 1.1 * fitted, 0.3, 1.0) / fitted
    return NoiseLevel(shot, max(read, LEAST_READ))


def _line(levels: Tensor, values: Tensor, weights: Tensor) -> tuple[float, float]:
    """Slope and offset, neither below 0, by weighted least squares."""
    x, y, one = levels * weights, values * weights, weights
    xx, xo, oo, xy, oy = (float((a * b).sum()) for a, b in ((x, x), (x, one), (one, one), (x, y), (one, y)))
    determinant = xx * oo - xo**2
    slope, offset = (
        ((xy * oo - oy * xo) / determinant, (oy * xx - xy * xo) / determinant) if determinant > 0 else (0, -1)
    )
    if slope < 0 or offset < 0:
        only_slope, only_offset = (max(xy / xx, 0.0) if xx > 0 else 0.0, oy / oo)
        return (only_slope, 0.0) if offset < 0 <= slope else (0.0, only_offset)
    return slope, offset
