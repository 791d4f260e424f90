"""Where two frames of one scene, laid on one another, show the same, and where something moved.

Nobody tells the noise of the sensor: it is measured in the difference of the two frames, for every brightness, from
details so fine that scenes have hardly any. Compare the robust merging of S. Hasinoff et al., "Burst photography for
high dynamic range and low-light imaging on mobile cameras" (2016), section 5, which has a noise model instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.ops.exposure import block_means

AGREEMENT_BLOCK = 8  # packed pixels
LEVELS = 12  # of brightness, with as many blocks each, at which noise is measured
FEWEST_BLOCKS = 24  # at a level
TOLERATED_PX = 0.5  # of misplacement: edges differ by that much where nothing moved
TOLERATED_GAIN = 0.03  # relative difference that exposure may leave
LARGEST_EXCESS = 3.0  # how far block means may scatter beyond what white noise explains, in deviations
QUIET, FALL = 2.0, 2.0  # squared difference in noise variances that is still trusted fully, and how trust falls then


def agreement(reference: Tensor, moved: Tensor) -> Tensor:
    """Weigh a frame per block against the reference, `[ceil(h / block), ceil(w / block)]`, in [0, 1].

    Both are packed planes `[4, h, w]` in [0, 1], amplified, balanced and laid on one another. Near 1 where only noise
    differs, near 0 where the content does; a difference in gain or black level over the whole frame does not count.
    """
    ours, theirs = block_means(reference, AGREEMENT_BLOCK), block_means(moved, AGREEMENT_BLOCK)
    theirs = _levelled(theirs, ours)
    difference = theirs - ours
    noise = _noise_of_means(reference - moved, ours, difference)
    slack = TOLERATED_PX * _slopes(ours) / AGREEMENT_BLOCK + TOLERATED_GAIN * ours
    squared = (difference.square() / (noise + slack.square()).clamp(min=1e-12)).mean(0)
    # Neighbours vouch for one another: chance makes one block differ, motion several.
    kernel = torch.tensor([1.0, 2.0, 1.0], device=squared.device) / 4
    padded = F.pad(squared[None, None].clamp(max=1e4), (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, (kernel[:, None] * kernel)[None, None])[0, 0]
    return torch.exp(-(smooth - QUIET).clamp(min=0) / FALL)


def agreement_pixels(weights: Tensor, top: int, height: int, width: int) -> Tensor:
    """Spread the weights of `agreement` over rows `top` to `top + height` of a frame, `[height, width]`.

    Linear between the centres of blocks, so that any band is what the whole frame would give there.
    """
    rows = _between(weights, top, height)
    return _between(rows.T, 0, width).T


def _between(values: Tensor, start: int, count: int) -> Tensor:
    """Interpolate `[n, m]`, one row per block, to `count` rows from `start` on; held beyond the outermost centres."""
    place = (torch.arange(start, start + count, device=values.device) + 0.5) / AGREEMENT_BLOCK - 0.5
    place = place.clamp(0, len(values) - 1)
    lower = place.long().clamp(max=max(len(values) - 2, 0))
    upper = (lower + 1).clamp(max=len(values) - 1)
    return torch.lerp(values[lower], values[upper], (place - lower).to(values)[:, None])


def _levelled(theirs: Tensor, ours: Tensor) -> Tensor:
    """Bring block means `[4, hb, wb]` to the level of others: a gain and an offset for every plane.

    Fitted to the blocks that fit, so that what moved does not take part.
    """
    first, second = ours.flatten(1), theirs.flatten(1)
    weight = torch.ones_like(first)
    gain, offset = torch.ones_like(first[:, :1]), torch.zeros_like(first[:, :1])
    for _ in range(4):
        total = weight.sum(1, keepdim=True).clamp(min=1e-6)
        centre = (weight * second).sum(1, keepdim=True) / total
        wanted = (weight * first).sum(1, keepdim=True) / total
        spread = (weight * (second - centre).square()).sum(1, keepdim=True)
        together = (weight * (second - centre) * (first - wanted)).sum(1, keepdim=True)
        # A flat frame has no slope to fit; a wild one is no gain of an exposure.
        gain = torch.where(spread > 1e-4 * total, together / spread.clamp(min=1e-12), 1.0).clamp(0.5, 2.0)
        offset = wanted - gain * centre
        rest = (first - gain * second - offset).abs()
        deviation = 1.48 * rest.median(1, keepdim=True).values.clamp(min=1e-5)
        weight = 1 / (1 + (rest / (2 * deviation)).square()).square()
    return (gain * second + offset).view_as(theirs)


def _noise_of_means(difference: Tensor, level: Tensor, of_means: Tensor) -> Tensor:
    """Variance that noise alone gives the difference of block means, `[4, hb, wb]`.

    `difference [4, h, w]` is of pixels. White noise is measured in its finest diagonal details; the factor by which
    block means scatter more, because noise is not white or was smoothed by resampling, is that of most blocks.
    """
    detail = (
        difference[:, 0:-1:2, 0:-1:2]
        - difference[:, 1::2, 0:-1:2]
        - difference[:, 0:-1:2, 1::2]
        + difference[:, 1::2, 1::2]
    ) / 2
    fine = block_means(detail.square(), AGREEMENT_BLOCK // 2)
    rows, cols = level.shape[-2:]
    fine = F.pad(fine[None], (0, cols - fine.shape[-1], 0, rows - fine.shape[-2]), mode="replicate")[0]
    white = torch.stack([_by_level(*pair) for pair in zip(fine, level, strict=True)]) / AGREEMENT_BLOCK**2
    scatter = (of_means.square() / white.clamp(min=1e-12)).flatten(1).median(1).values / 0.455  # of a normal one
    return white * scatter.clamp(1, LARGEST_EXCESS**2)[:, None, None]


def _by_level(values: Tensor, level: Tensor) -> Tensor:
    """Replace values `[hb, wb]` by what is usual at their level: medians of equal shares, linear between them."""
    order = level.flatten().argsort()
    shares = max(min(LEVELS, len(order) // FEWEST_BLOCKS), 1)
    parts = torch.tensor_split(order, shares)
    centres = torch.stack([level.flatten()[part].median() for part in parts])
    usual = torch.stack([values.flatten()[part].median() for part in parts])
    if shares == 1:
        return usual.expand_as(level)
    upper = torch.bucketize(level.contiguous(), centres).clamp(1, shares - 1)
    low, high = centres[upper - 1], centres[upper]
    fraction = ((level - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return torch.lerp(usual[upper - 1], usual[upper], fraction)


def _slopes(means: Tensor) -> Tensor:
    """How much block means `[4, hb, wb]` change from one block to the next, the larger side of each axis."""
    padded = F.pad(means[None], (1, 1, 1, 1), mode="replicate")[0]
    middle = padded[:, 1:-1, 1:-1]
    down = torch.maximum((padded[:, 2:, 1:-1] - middle).abs(), (middle - padded[:, :-2, 1:-1]).abs())
    right = torch.maximum((padded[:, 1:-1, 2:] - middle).abs(), (middle - padded[:, 1:-1, :-2]).abs())
    return torch.hypot(down, right)
