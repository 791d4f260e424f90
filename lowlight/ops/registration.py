"""How frames of one scene lie on one another, and bringing them onto one grid.

A shift is (down, right) in packed pixels: how far a frame's content lies below and right of the reference's. At a
ratio of 300 single pixels are noise, so a whole shift is found in means over blocks, and its fraction by Newton's
steps on the gradients of smaller ones.

Sources: C. Kuglin, D. Hines, "The phase correlation image alignment method" (1975); B. Lucas, T. Kanade, "An
iterative image registration technique with an application to stereo vision" (1981).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.ops.color import encode
from lowlight.ops.exposure import block_means
from lowlight.ops.resampling import resample

MIN_CONFIDENCE = 10.0  # frames of one scene reach 15 to 50 at ratios of 100 to 300, different scenes 4 to 7

WANTED_BLOCKS = 256  # along the shorter side; frames smaller than that are compared in blocks of 2
WANTED_FINE = 512  # pixels of the smallest size of blocks that a fraction is measured in
LOWPASS_CYCLES = 0.12  # per block: deviation of the weight on frequencies
PLANE_WEIGHTS = (1 / 6, 1 / 3, 1 / 6, 1 / 3)  # R, G1, B, G2: green is the least noisy
LEVEL = 0.15  # mean light of the frames when they are compared
SAMPLED = 5  # one in so many blocks is enough for a median
STEPS, STILL_PX = 3, 0.01  # of Newton's method at each size of blocks; a step smaller than that is the last


class Registration(NamedTuple):
    """How a frame lies on the reference.

    `shift` is how far the frame's content lies below and right of the reference's, in packed pixels; `confidence` how
    far the peak of the phase correlation stands out, in deviations of its surface (see `MIN_CONFIDENCE`);
    `correlation` is of block means once the shift is undone.
    """

    shift: tuple[float, float]
    confidence: float
    correlation: float


class Peak(NamedTuple):
    """Where a phase correlation is highest: shift in blocks, and how far it stands out in deviations."""

    shift: tuple[float, float]
    confidence: float


def block_side(height: int, width: int) -> int:
    """Packed pixels along a block for frames of this size."""
    return max(2, min(height, width) // WANTED_BLOCKS)


def register(reference: Tensor, frame: Tensor, largest_px: float = 64.0) -> Registration:
    """Find how `frame` lies on `reference`, both packed planes `[4, h, w]`, amplified and balanced, in [0, 1].

    A shift is searched up to `largest_px` packed pixels along each axis, and never beyond a third of the frame.
    A remaining difference in exposure does not matter. Raises `ValueError` for frames of different sizes.
    """
    if reference.shape != frame.shape:
        raise ValueError(f"frames of {tuple(reference.shape)} and {tuple(frame.shape)} cannot be laid on one another")
    height, width = reference.shape[-2:]
    fine = max(1, min(height, width) // WANTED_FINE)
    lights = [_means(_light(planes), fine) for planes in (reference, frame)]
    lights = [light * (LEVEL / light.mean().clamp(min=1e-6)) for light in lights]
    height, width = lights[0].shape
    block = block_side(height, width)
    first, second = (_contrast(light, block) for light in lights)
    largest = (min(largest_px / fine, height / 3) / block, min(largest_px / fine, width / 3) / block)
    peak = phase_peak(first, second, largest)
    coarse = (block * peak.shift[0], block * peak.shift[1])
    # Levels are matched once and then held: on a smooth scene a little gain looks like a little shift.
    level = [float(light.mean()) for light in _overlap(lights[0], lights[1], (round(coarse[0]), round(coarse[1])))]
    lights = [light * (LEVEL / max(mean, 1e-6)) for light, mean in zip(lights, level, strict=True)]
    shift = _refined(lights[0], lights[1], coarse, limit_px=3.0 * block)
    whole = (round(shift[0]), round(shift[1]))
    ours, theirs = (_contrast(light, block) for light in _overlap(lights[0], lights[1], whole))
    return Registration((fine * shift[0], fine * shift[1]), peak.confidence, correlation(ours, theirs))


def phase_peak(first: Tensor, second: Tensor, largest: tuple[float, float] | None = None) -> Peak:
    """Find how `second [h, w]` lies on `first` by phase correlation, to a fraction of a block.

    `largest` bounds the shift searched, in blocks down and right.
    """
    surface = _phase_correlation(first, second)
    mean, deviation = float(surface.mean()), float(surface.std()) or 1.0
    searched = surface
    if largest is not None:
        inside = [
            torch.fft.fftfreq(size, 1 / size).abs() <= max(most, 1)
            for size, most in zip(surface.shape, largest, strict=True)
        ]
        searched = surface.masked_fill(~(inside[0][:, None] & inside[1]).to(surface.device), -math.inf)
    row, col = divmod(int(searched.argmax()), surface.shape[1])
    shift = (_parabola(surface[:, col], row), _parabola(surface[row], col))
    return Peak(shift, (float(surface[row, col]) - mean) / deviation)


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's r of two planes of one size; 0 where one is flat or hardly any is left."""
    if first.numel() < 16:
        return 0.0
    ours, theirs = (plane.double() - plane.double().mean() for plane in (first, second))
    deviations = (float(ours.square().mean().sqrt()), float(theirs.square().mean().sqrt()))
    return 0.0 if min(deviations) < 1e-4 else float((ours * theirs).mean()) / (deviations[0] * deviations[1])


def overlap_cuts(size: tuple[int, int], shift: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a reference and a frame that lies `shift` below and right of it show the same, as cuts of both."""
    cuts = [
        (slice(max(-step, 0), length - max(step, 0)), slice(max(step, 0), length - max(-step, 0)))
        for length, step in zip(size, shift, strict=True)
    ]
    return (cuts[0][0], cuts[1][0]), (cuts[0][1], cuts[1][1])


def _light(planes: Tensor) -> Tensor:
    """One plane of light `[h, w]` from packed planes, without the pixels that stand alone: hot ones do not move."""
    weights = torch.tensor(PLANE_WEIGHTS, device=planes.device, dtype=planes.dtype)
    light = torch.einsum("c,chw->hw", weights, planes)
    ring = F.pad(light[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    around = torch.maximum(ring[:-2, 1:-1], ring[2:, 1:-1])
    around = torch.maximum(around, torch.maximum(ring[1:-1, :-2], ring[1:-1, 2:]))
    return torch.minimum(light, around)


def _contrast(light: Tensor, block: int) -> Tensor:
    """Means over whole blocks, encoded, so that lamps do not outweigh everything else."""
    return encode(_means(light, block).clamp(0, 1))


def _means(light: Tensor, block: int) -> Tensor:
    """Means over whole blocks; the rest at the border is cut."""
    height, width = (max(size // block, 1) * block for size in light.shape)
    return light if block == 1 else block_means(light[None, :height, :width], block)[0]


def _overlap(first: Tensor, second: Tensor, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
    ours, theirs = overlap_cuts((first.shape[0], first.shape[1]), shift)
    return first[ours], second[theirs]


def _spectra(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    rows, cols = (torch.hann_window(size, periodic=False, device=first.device) for size in first.shape)
    window = rows[:, None] * cols
    one, two = (torch.fft.rfft2((plane - plane.mean()) * window) for plane in (first, second))
    return one, two


def _frequencies(shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.fft.fftfreq(shape[0], device=device)[:, None], torch.fft.rfftfreq(shape[1], device=device)[None]


def _phase_correlation(first: Tensor, second: Tensor) -> Tensor:
    """The surface whose peak lies at the shift of `second` against `first`, wrapped around."""
    one, two = _spectra(first, second)
    cross = two * one.conj()
    cross = cross / (cross.abs() + 1e-12)
    rows, cols = _frequencies(first.shape, first.device)
    cross = cross * torch.exp(-(rows.square() + cols.square()) / (2 * LOWPASS_CYCLES**2))
    surface: Tensor = torch.fft.irfft2(cross, s=first.shape)
    return surface


def _parabola(line: Tensor, peak: int) -> float:
    """Where a parabola through the peak and its neighbours is highest; the second half of a line is negative."""
    before, at, after = (float(line[(peak + step) % len(line)]) for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    offset = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    place = peak + offset
    return place - len(line) if place > len(line) / 2 else place


def _refined(first: Tensor, second: Tensor, coarse: tuple[float, float], limit_px: float) -> tuple[float, float]:
    """Bring a shift found in blocks to a fraction of a pixel, at most `limit_px` from where it began.

    Newton's steps in smaller and smaller blocks; the answer is that of the blocks with the least error expected: too
    large ones show no detail, too small ones mostly noise.
    """
    block = 2 * block_side(first.shape[0], first.shape[1])
    shift = best = coarse
    least_px = math.inf
    while block >= 1:
        error = math.inf
        for _ in range(STEPS):
            whole = (round(shift[0]), round(shift[1]))
            ours, theirs = _overlap(first, second, whole)
            if min(ours.shape) < 8 * block:
                break
            theirs = resample(theirs[None], (shift[0] - whole[0], shift[1] - whole[1]))[0]
            step, error = _newton_step(_contrast(ours, block), _contrast(theirs, block))
            shift = (shift[0] + block * step[0], shift[1] + block * step[1])
            if max(abs(a - b) for a, b in zip(shift, coarse, strict=True)) > limit_px:
                return best
            if max(map(abs, step)) * block < STILL_PX:
                break
        if block * error < least_px and max(map(abs, step)) < 0.5:
            best, least_px = shift, block * error
        elif block * error > 1.5 * least_px:
            break
        block //= 2
    return best


def _newton_step(first: Tensor, second: Tensor) -> tuple[tuple[float, float], float]:
    """How much further `second [h, w]` lies below and right of `first`, in pixels, and the error to be expected.

    The gradients of the two are multiplied with one another and not with themselves, so that their noise, which is
    independent, does not make the step short. What differs most, because it moved, counts least.
    """
    ours, theirs = _gradients(first), _gradients(second)
    slopes = (ours + theirs) / 2
    rest = (first - second)[1:-1, 1:-1].flatten()
    weight = torch.ones_like(rest)
    for _ in range(2):
        bend = (ours * weight) @ theirs.T
        bend = (bend + bend.T) / 2
        if not (float(torch.linalg.det(bend)) > 0 and float(bend.trace()) > 0):
            return (0.0, 0.0), math.inf
        weighted = slopes * weight
        step = torch.linalg.solve(bend, weighted @ (rest - (weight * rest).sum() / weight.sum()))
        left = rest - step @ slopes
        left = left - left[::SAMPLED].median()
        deviation = 1.48 * left[::SAMPLED].abs().median().clamp(min=1e-6)
        inverse = torch.linalg.inv(bend)
        spread = inverse @ (weighted @ weighted.T) @ inverse * deviation.square()
        weight = 1 / (1 + (left / (3 * deviation)).square()).square()
    down, right = step.clamp(-1, 1).tolist()
    return (down, right), float(spread.trace().clamp(min=0).sqrt())


def _gradients(plane: Tensor) -> Tensor:
    """Central differences down and right inside the border, `[2, (h - 2) * (w - 2)]`."""
    down, right = plane[2:, 1:-1] - plane[:-2, 1:-1], plane[1:-1, 2:] - plane[1:-1, :-2]
    return torch.stack((down, right)).flatten(1) / 2
