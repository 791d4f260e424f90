"""Whether a dark frame and its truth show the same, in the same place: phase correlation of block means.

Source: C. Kuglin, D. Hines, "The phase correlation image alignment method" (1975). At a ratio of 300 single pixels
are noise; means over blocks of linear light are not, and high frequencies are weighed down.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lowlight.ops.color import LUMA, decode, encode
from lowlight.ops.exposure import block_means

Plane = npt.NDArray[np.float32]

WANTED_BLOCKS = 256  # along the shorter side; frames smaller than that are compared in blocks of 2
MIN_CORRELATION = 0.5  # of coarse blocks, for a gain to mean anything
LOWPASS_CYCLES = 0.12  # per block: deviation of the weight on frequencies


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


def block_side(height: int, width: int) -> int:
    """Packed pixels along a block for frames of this size."""
    return max(2, min(height, width) // WANTED_BLOCKS)


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
    first, second = (_contrast(plane) for plane in (dark, bright))
    surface = _phase_correlation(first, second)
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    spread = float(surface.std()) or 1.0
    peak = (float(surface[row, col]) - float(surface.mean())) / spread
    shift = (_refined(surface[:, col], int(row)), _refined(surface[row, :], int(col)))
    whole = (round(shift[0]), round(shift[1]))
    return Alignment((block * shift[0], block * shift[1]), peak, _correlation(first, second, whole))


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


def _contrast(light: Plane) -> Plane:
    """Encode, so that lamps do not outweigh everything else."""
    encoded: Plane = encode(torch.from_numpy(light).clamp(0, 1)).numpy()
    return encoded


def _phase_correlation(first: Plane, second: Plane) -> Plane:
    """The surface whose peak lies at the shift of `second` against `first`, wrapped around."""
    window = np.outer(np.hanning(first.shape[0]), np.hanning(first.shape[1]))
    spectra = [np.fft.rfft2((plane - plane.mean()) * window) for plane in (first, second)]
    cross = spectra[1] * np.conj(spectra[0])
    cross /= np.abs(cross) + 1e-12
    rows, cols = np.fft.fftfreq(first.shape[0])[:, None], np.fft.rfftfreq(first.shape[1])[None]
    cross *= np.exp(-(rows**2 + cols**2) / (2 * LOWPASS_CYCLES**2))
    return np.asarray(np.fft.irfft2(cross, first.shape), dtype=np.float32)


def _refined(line: Plane, peak: int) -> float:
    """Where a parabola through the peak and its neighbours is highest; the second half of a line is negative."""
    before, at, after = (float(line[(peak + step) % len(line)]) for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    offset = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    place = peak + offset
    return place - len(line) if place > len(line) / 2 else place


def _correlation(first: Plane, second: Plane, shift: tuple[int, int]) -> float:
    """Pearson's r of two planes where they overlap once `second` is moved back by `shift` blocks; 0 where flat."""
    cuts = []
    for size, step in zip(first.shape, shift, strict=True):
        cuts.append((slice(max(-step, 0), size - max(step, 0)), slice(max(step, 0), size - max(-step, 0))))
    ours, theirs = first[cuts[0][0], cuts[1][0]], second[cuts[0][1], cuts[1][1]]
    if ours.size < 16 or ours.std() < 1e-4 or theirs.std() < 1e-4:
        return 0.0
    return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])
