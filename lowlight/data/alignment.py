"""Whether a dark frame and its truth show the same, in the same place: phase correlation of block means.

At a ratio of 300 single pixels are noise; means over blocks of linear light are not.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lowlight.ops.color import LUMA, decode, encode
from lowlight.ops.exposure import block_means
from lowlight.ops.registration import correlation, overlap_cuts, phase_peak

Plane = npt.NDArray[np.float32]

MIN_CORRELATION = 0.5  # of coarse blocks, for a gain to mean anything


@dataclass(frozen=True)
class Alignment:
    """How the truth lies on the dark frame.

    `shift_px` is how far the truth is moved down and right, in packed pixels; `peak` how far the peak of the phase
    correlation stands out, in deviations of its surface; `correlation` is of the block means once the shift is undone.
    """

    shift_px: tuple[float, float]
    peak: float
    correlation: float

    @property
    def distance_px(self) -> float:
        """Length of the shift in packed pixels."""
        return float(np.hypot(*self.shift_px))


def light_blocks(light: torch.Tensor, block: int) -> Plane:
    """Means of linear light `[h, w]` over whole blocks, `[h // block, w // block]`; the rest at the border is cut."""
    height, width = (size // block * block for size in light.shape)
    means: Plane = block_means(light[None, :height, :width], block)[0].numpy()
    return means


def truth_light(truth: npt.NDArray[np.uint16]) -> torch.Tensor:
    """Linear luminance `[h, w]` of an encoded truth `[h, w, 3]`."""
    linear = decode(torch.from_numpy(truth.astype(np.float32) / np.float32(65535)))
    return linear @ torch.tensor(LUMA)


def align(dark: Plane, bright: Plane, block: int) -> Alignment:
    """Find how block means of linear light `bright [h, w]` lie on those of `dark`, both amplified to one level."""
    first, second = (encode(torch.from_numpy(plane).clamp(0, 1)) for plane in (dark, bright))
    shift, peak = phase_peak(first, second)
    ours, theirs = overlap_cuts((first.shape[0], first.shape[1]), (round(shift[0]), round(shift[1])))
    return Alignment((block * shift[0], block * shift[1]), peak, correlation(first[ours], second[theirs]))


def measured_gain(dark: Plane, bright: Plane) -> float | None:
    """By how much light in `bright` grows with light in `dark`; None where they hardly move together.

    The dark frame holds nearly all the noise, so it is regressed on the truth: a wrong black level is an intercept and
    noise does not pull the slope down. Give coarse blocks that nothing clips in.
    """
    first, second = dark.ravel().astype(np.float64), bright.ravel().astype(np.float64)
    if first.size < 16 or first.std() == 0 or second.std() == 0:
        return None
    together = float(np.mean((first - first.mean()) * (second - second.mean())))
    if together < MIN_CORRELATION * first.std() * second.std():
        return None
    return float(second.var()) / together
