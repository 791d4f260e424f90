"""Several dark frames of one scene on one grid and at one brightness, read band by band.

Each frame is matched to the first, the reference: by a shift, by a gain, and by how far its content may be trusted
where something moved. Only the mosaics are kept; light is brought to the reference's grid for the rows that are asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.errors import UsageError
from lowlight.core.photo import RawFrame
from lowlight.ops.agreement import AGREEMENT_BLOCK, agreement, agreement_pixels
from lowlight.ops.exposure import amplify, meter_level, ratio_at
from lowlight.ops.noise_level import noise_points
from lowlight.ops.registration import (
    MIN_CONFIDENCE,
    Registration,
    register,
)
from lowlight.ops.resampling import margin_px, resample, shifted
from lowlight.raw.bayer import in_blocks, pack, packed_size

MIN_CORRELATION = 0.5  # of block means, for two frames with a clear peak to show one scene
SURE_CORRELATION = 0.9  # for two frames without one, such as those out of focus
GAIN_TOLERANCE_STOPS = 0.5  # exposure data further than this from the measured levels are not believed
SEEN_SHIFT = 0.01  # by how much the error must grow when a fraction of a shift is undone the wrong way
SATURATED = 0.98  # of white; above it a longer exposure says nothing
NOISE_WINDOW_PX = 1024  # packed pixels each way, in the middle, in which noise is measured
SMALLEST_WEIGHT = 1e-6


@dataclass(frozen=True, eq=False)
class AlignedFrame:
    """One frame of a scene, and how it lies on the reference.

    `gain` brings its light to the reference's level. `shift` is how far its content lies below and right of the
    reference's, in packed pixels. `variance` is its noise at the reference's level, relative to other frames.
    `trust [hb, wb]` in [0, 1] says block by block where its content is the reference's; None: everywhere.
    """

    frame: RawFrame
    gain: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    variance: float = 1.0
    trust: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Burst:
    """Frames of one scene, the reference first. `notes` are sentences on what was found while aligning them.

    Planes are linear and in the reference's units: 0 is its black, 1 its white.
    """

    frames: tuple[AlignedFrame, ...]
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def single(cls, frame: RawFrame) -> "Burst":
        """A scene of one frame."""
        return cls((AlignedFrame(frame),))

    def in_blocks(self) -> "Burst":
        """The scene for pictures of one pixel for each 2x2 block, see `lowlight.raw.bayer.in_blocks`."""
        frames = tuple(replace(each, frame=in_blocks(each.frame)) for each in self.frames)
        changed = any(new.frame is not old.frame for new, old in zip(frames, self.frames, strict=True))
        return Burst(frames, self.notes) if changed else self

    @property
    def reference(self) -> RawFrame:
        """The frame whose grid, brightness, balance and metadata the picture has."""
        return self.frames[0].frame

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the packed planes."""
        return packed_size(self.reference.size, self.reference.pattern)

    def average(self, start: int = 0, stop: int | None = None, *, clip: bool = True) -> Tensor:
        """Mean of all frames in packed rows `start` to `stop`, `[4, stop - start, w]`; clipped at black on request.

        Weights are the inverse of the noise, times the trust. Noise keeps its sign until it is averaged, so that
        clipping does not turn it into light; values above 1 are left as they are.
        """
        stop = self.size[0] if stop is None else stop
        if len(self.frames) == 1:
            return pack(self.reference, start, stop, clip=clip)
        total = torch.zeros(4, stop - start, self.size[1])
        weights = torch.zeros_like(total)
        for index, aligned in enumerate(self.frames):
            planes, trust = self._light(index, start, stop)
            weight = trust / aligned.variance
            total += planes.mul_(weight)
            weights += weight
        mean = total.div_(weights)
        return mean.clamp_(min=0) if clip else mean

    def member(self, index: int, start: int, stop: int) -> Tensor:
        """One frame's packed rows on the reference's grid and level, `[4, stop - start, w]`, clipped at black.

        Where the frame is not to be trusted the reference stands in for it.
        """
        reference = pack(self.reference, start, stop)
        if index == 0:
            return reference
        planes, trust = self._light(index, start, stop)
        return torch.lerp(reference, planes.clamp_(min=0), trust)

    def _light(self, index: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Signed planes of a frame on the reference's grid, and how far to trust each value; above 0 in the first."""
        aligned = self.frames[index]
        planes = _moved_rows(aligned.frame, aligned.shift, start, stop)
        trust = torch.ones(planes.shape[1:])
        if aligned.trust is not None:
            trust = agreement_pixels(aligned.trust, start, stop - start, planes.shape[2])
        if index > 0:
            trust = trust * _inside(aligned.shift, start, stop, self.size)
        if self._bracketed:
            trust = torch.where(planes >= SATURATED, trust * SMALLEST_WEIGHT, trust)
        return planes.mul_(aligned.gain), trust

    @property
    def _bracketed(self) -> bool:
        return any(abs(aligned.gain - 1) > 0.01 for aligned in self.frames)


def align(frames: Sequence[RawFrame]) -> Burst:
    """Match frames of one scene to the first of them.

    Frames of another size or colour pattern raise `UsageError` with their names. A frame of another scene is left out
    with a note; a frame of another camera is kept with a note.
    """
    reference, *others = frames
    for other in others:
        _check_likeness(reference, other)
    if not others:
        return Burst.single(reference)
    signed = pack(reference, clip=False)
    level = meter_level(signed)
    ratio = ratio_at(level)
    gains = torch.tensor(reference.wb_gains)
    aligned = [AlignedFrame(reference, variance=_noise_variance(signed))]
    bright = amplify(signed.clamp_(min=0), ratio, gains, "wb")
    notes: list[str] = []
    for number, other in enumerate(others, 2):
        name, cameras = _name(other, number), [each.metadata.camera or "unknown" for each in (other, reference)]
        is_other_camera = other.metadata.model != reference.metadata.model
        signed = pack(other, clip=False)
        gain, doubt = _gain(reference, other, level, meter_level(signed))
        variance = _noise_variance(signed) * gain**2
        planes = amplify(signed.clamp_(min=0), ratio * gain, gains, "wb")
        found = register(bright, planes)
        if not same_scene(found):
            notes.append(
                f"{name} was left out: it does not show the scene of {_name(reference, 1)} "
                f"(correlation {found.correlation:.2f}{f'; another camera, {cameras[0]}' if is_other_camera else ''})."
            )
            continue
        if is_other_camera:
            notes.append(f"{name} comes from another camera ({cameras[0]}) than {_name(reference, 1)} ({cameras[1]}).")
        shift = _settled(bright, planes, found.shift)
        trust = agreement(bright, _moved(planes, shift))
        aligned.append(AlignedFrame(other, gain, shift, variance, trust))
        moved = f"{name} lies {2 * shift[0]:+.1f} down, {2 * shift[1]:+.1f} right (sensor pixels)"
        share = _moved_share(trust, shift, reference)
        moved += f", {100 * share:.0f} % of it moved" if share >= 0.02 else ""
        moved += f", {math.log2(gain):+.2f} stops" if abs(math.log2(gain)) >= 0.01 else ""
        notes.append(moved + (f"; {doubt}." if doubt else "."))
    return Burst(tuple(_with_sane_variances(aligned)), tuple(notes))


def same_scene(found: Registration) -> bool:
    """Whether two frames so registered show one scene."""
    clear = found.confidence >= MIN_CONFIDENCE and found.correlation >= MIN_CORRELATION
    return clear or found.correlation >= SURE_CORRELATION


def _check_likeness(reference: RawFrame, other: RawFrame) -> None:
    names = f"{_name(other, 2)} and {_name(reference, 1)}"
    if other.size != reference.size:
        (h, w), (height, width) = other.size, reference.size
        raise UsageError(
            f"{names} have different sizes, {w}x{h} and {width}x{height} pixels; frames of one scene have one size, "
            "so leave one of them out"
        )
    if other.pattern != reference.pattern:
        raise UsageError(
            f"{names} have different colour filter patterns; frames of one scene have one, so leave one of them out"
        )


def _name(frame: RawFrame, number: int) -> str:
    return frame.path.name if frame.path else f"frame {number}"


def _gain(reference: RawFrame, other: RawFrame, level: float, other_level: float) -> tuple[float, str | None]:
    """Bring another frame's light to the reference's level: exposure data where known and believable, else levels."""
    measured = level / other_level if level > 0 and other_level > 0 else None
    told = _told_gain(reference, other)
    if told is None:
        return measured or 1.0, None
    if measured is not None and abs(math.log2(measured / told)) > GAIN_TOLERANCE_STOPS:
        return measured, "its exposure data do not fit its brightness, which was matched instead"
    return told, None


def _told_gain(reference: RawFrame, other: RawFrame) -> float | None:
    """The gain by exposure time, sensitivity and aperture; what neither frame tells is taken to be equal."""
    gain = 1.0
    for name, power in (("exposure_s", 1), ("iso", 1), ("aperture", -2)):
        ours, theirs = getattr(reference.metadata, name), getattr(other.metadata, name)
        if (ours is None) != (theirs is None) or (ours is None and name == "exposure_s"):
            return None
        if ours is not None:
            gain *= (ours / theirs) ** power
    return gain


def _noise_variance(signed: Tensor) -> float:
    """Variance of the noise in `signed [4, h, w]`, in the calmer blocks of its middle."""
    rows, cols = (slice(max((size - NOISE_WINDOW_PX) // 2, 0), None) for size in signed.shape[1:])
    middle = signed[:, rows, cols][:, :NOISE_WINDOW_PX, :NOISE_WINDOW_PX]
    if min(middle.shape[1:]) < 2:
        return 0.0
    return float(noise_points(middle)[1].quantile(0.25))


def _with_sane_variances(aligned: list[AlignedFrame]) -> list[AlignedFrame]:
    """Where a variance is zero, as in a frame that is black, nothing can be weighed by it: all count the same."""
    if min(each.variance for each in aligned) > 0:
        return aligned
    return [AlignedFrame(each.frame, each.gain, each.shift, 1.0, each.trust) for each in aligned]


def _settled(reference: Tensor, planes: Tensor, shift: tuple[float, float]) -> tuple[float, float]:
    """Round a shift to whole pixels unless its fraction can be seen; frames on a tripod are then not resampled.

    Undoing the fraction the wrong way smooths the noise as much as the right way does, so what the error grows by is
    misplaced content: four times what would be left by rounding.
    """
    whole = (float(round(shift[0])), float(round(shift[1])))
    if shift == whole:
        return whole
    wrong = (2 * whole[0] - shift[0], 2 * whole[1] - shift[1])
    inside = [slice(margin_px((abs(step), 0.0)) + 1, -margin_px((abs(step), 0.0)) - 1) for step in whole]
    greens = [each[1:2] + each[3:4] for each in (reference, planes)]
    errors = [
        float((greens[0] - resample(greens[1], way))[:, inside[0], inside[1]].square().mean()) for way in (shift, wrong)
    ]
    return shift if errors[1] > errors[0] * (1 + SEEN_SHIFT) else whole


def _moved(planes: Tensor, shift: tuple[float, float]) -> Tensor:
    return planes if shift == (0.0, 0.0) else shifted(planes, shift)


def _moved_share(trust: Tensor, shift: tuple[float, float], reference: RawFrame) -> float:
    """How much of what both frames show is not to be trusted; a block beside the border has vouched for those on it."""
    size = packed_size(reference.size, reference.pattern)
    inside = _inside(shift, 0, size[0], size)[None, None]
    block = AGREEMENT_BLOCK
    if min(size) < block:
        return 0.0  # smaller than a block, in which nothing can be told to have moved
    around = F.avg_pool2d(inside, 3 * block, block, block, count_include_pad=False)[0, 0]
    shared = trust[: around.shape[0], : around.shape[1]][around == 1]
    return 1 - float(shared.mean()) if len(shared) else 0.0


def _moved_rows(frame: RawFrame, shift: tuple[float, float], start: int, stop: int) -> Tensor:
    """Signed packed rows of a frame, moved onto the reference's grid; mirrored where it does not reach."""
    if shift == (0.0, 0.0):
        return pack(frame, start, stop, clip=False)
    margin = margin_px(shift)
    low = max(start - margin, 0)
    high = min(stop + margin, packed_size(frame.size, frame.pattern)[0])
    return resample(pack(frame, low, high, clip=False), shift)[:, start - low : stop - low].clone()


def _inside(shift: tuple[float, float], start: int, stop: int, size: tuple[int, int]) -> Tensor:
    """1 where the reference's pixels `[stop - start, w]` lie on a frame so shifted, 0 beside it."""
    rows, cols = torch.arange(start, stop) + shift[0], torch.arange(size[1]) + shift[1]
    within = [(place >= 0) & (place <= length - 1) for place, length in zip((rows, cols), size, strict=True)]
    return (within[0][:, None] & within[1][None]).float()
