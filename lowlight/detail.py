"""What a network smoothed away and the plain picture still shows, brought back.

The plain picture differs from the restored one by its noise and by what the restored one lost. Where the difference is
larger than noise explains, the excess is content: a Wiener filter of the difference, from its power in a small window
and the noise of the frame, takes the noise out and leaves the rest to be added. In deep shadow next to nothing is
added, in a well exposed photo nearly all.

What is coarse, a tint, and what is fine are judged apart, so that a tint that comes back does not bring noise along.
Tints are means of many pixels, in which far less light stands out than in one: they are judged in linear light, where
noise that was not clipped at black averages to nothing, in a large window first and then in a small one.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.burst import Burst
from lowlight.core.photo import PerColour
from lowlight.core.threads import at_once, spans
from lowlight.ops.color import decode, encode
from lowlight.ops.demosaic import REACH_PX, demosaic
from lowlight.ops.exposure import amplify
from lowlight.ops.noise_level import BLOCK_PX, UNKNOWN, NoiseLevel, fit_noise, noise_points
from lowlight.raw.develop import to_encoded, to_linear

FINE_REACH = 2  # blocks of 2x2 pixels on each side, in whose window the power of what is fine is measured
# The fine difference counts from so many times the noise's variance on.
CERTAINTY = 4.0
# Windows of tints, in blocks on each side, and from how many times the variance of such a mean they count. Less gives a
# higher PSNR and coloured blotches in dark asphalt.
TINTS = ((4, 16.0), (2, 10.0))
UNEVEN_READ = 0.3  # of the read noise's variance: by so much a mean may be off for the black level's sake
# Rows and columns around a pixel that decide about it.
REACH = 2 * max(2 * FINE_REACH, sum(reach for reach, _ in TINTS))
OUTLIER = 3.0  # standard deviations of noise by which a pixel may stand out from all around
_NOTHING = 1e-12
BAND_ROWS, LARGE_BAND_ROWS = 128, 1024  # of the picture, brought back at a time; on a device
STRIP_ROWS, STRIPS = 4 * BLOCK_PX + 1, 12  # packed rows in which noise is measured
WHITE = 65535

Pixels = npt.NDArray[np.uint16]
Window = tuple[int, int, int, int]  # x, y, width, height in sensor pixels of the visible mosaic


def measure_noise(burst: Burst) -> NoiseLevel:
    """The noise of a scene's mean light, from strips spread over the frame."""
    height = burst.size[0]
    step = max(height // STRIPS, STRIP_ROWS)
    starts = range(0, max(height - STRIP_ROWS, 0) + 1, step)
    # In the CPU's memory, where the mosaics are in any case.
    strips = [Burst.average(burst, top, min(top + STRIP_ROWS, height), clip=False) for top in starts]
    points = [noise_points(strip) for strip in strips if min(strip.shape[1:]) > 1]
    if not points:
        return UNKNOWN
    return fit_noise(torch.cat([light for light, _ in points]), torch.cat([each for _, each in points]))


class PlainNoise(NamedTuple):
    """Variance of the plain picture's noise, R, G and B.

    `encoded [3, 65536]` is that of encoded values, by the value; that of light is `shot * light + read`, `[3, 1, 1]`.
    """

    encoded: Tensor
    shot: Tensor
    read: Tensor


def plain_noise(noise: NoiseLevel, ratio: float, gains: PerColour, device: torch.device | None = None) -> PlainNoise:
    """Carry the noise of a frame to its amplified, balanced and encoded picture."""
    light = decode(torch.arange(WHITE + 1, dtype=torch.float64) / WHITE)
    gain = ratio * torch.tensor(gains, dtype=torch.float64)[:3, None]
    shot, read = gain * noise.shot, gain.square() * noise.read
    encoded = (shot * light + read) * _slope().square()
    return PlainNoise(*(each.float().to(device) for each in (encoded, shot[..., None], read[..., None])))


@cache
def _slope() -> Tensor:
    """By how much an encoded value changes with light, at each of 65536 values."""
    light = decode(torch.arange(-1, WHITE + 2, dtype=torch.float64).clamp(0, WHITE) / WHITE)
    ends = torch.full((WHITE + 1,), 2.0, dtype=torch.float64)
    ends[0] = ends[-1] = 1.0
    return ends / WHITE / (light[2:] - light[:-2])


def recovered(restored: Tensor, plain: Tensor, shown: Tensor, seen: Tensor, noise: PlainNoise) -> Tensor:
    """`restored [3, h, w]` with what `plain` shows beyond noise; encoded, in [0, 1]; `plain` is lost.

    `shown` and `seen` are the linear light of both as means of 2x2 blocks, `[3, ceil(h/2), ceil(w/2)]`; that of `plain`
    is not clipped at black. Each block has its own share of what is fine.
    """
    before = encode(shown)
    tint = encode((shown + _missing(shown, seen, noise)).clamp_(0, 1)).sub_(before)
    levels = before.mul_(WHITE).long().clamp_(0, WHITE)
    fine = plain.sub_(restored)
    coarse = _window_means(_block_means(fine), FINE_REACH)
    for part, mean in _in_blocks(fine, coarse):
        part.sub_(mean)
    power = _window_means(_block_means(fine, squared=True), FINE_REACH).clamp_(min=_NOTHING)
    variance = torch.stack([values[level] for values, level in zip(noise.encoded, levels, strict=True)])
    share = (1 - variance.mul_(CERTAINTY).div_(power)).clamp_(0, 1)
    for part, (of_fine, added) in _in_blocks(fine, torch.stack((share, tint))):
        part.mul_(of_fine).add_(added)
    return fine.add_(restored)


def _missing(shown: Tensor, seen: Tensor, noise: PlainNoise) -> Tensor:
    """The light of tints that is missing in each block, `[3, h, w]`.

    All three colours come back by one share, which the most certain of them decides: by one alone the tint would be
    another.
    """
    left, found = seen - shown, torch.zeros_like(shown)
    light = torch.maximum(_window_means(seen, TINTS[-1][0]), shown)
    for reach, certainty in TINTS:
        mean = _window_means(left, reach)
        variance = (noise.shot * light + noise.read) * (certainty / (2 * reach + 1) ** 2) + UNEVEN_READ * noise.read
        times = (mean.square() / variance.clamp_(min=_NOTHING)).amax(0)
        mean *= (1 - 1 / times.clamp_(min=1)).clamp_(0, 1)
        found += mean
        left -= mean
    return found


def _in_blocks(planes: Tensor, blocks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The four pixels of every 2x2 block of `planes [3, h, w]`, each with the `blocks [..., ceil(h/2), ceil(w/2)]`."""
    for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = planes[:, row::2, col::2]
        yield part, blocks[..., : part.shape[1], : part.shape[2]]


def _block_means(planes: Tensor, *, squared: bool = False) -> Tensor:
    """Means of 2x2 pixels, or of their squares, of what there is of them at the lower and right end."""
    height, width = planes.shape[1:]
    if height % 2 or width % 2:
        planes = F.pad(planes[None], (0, width % 2, 0, height % 2), mode="replicate")[0]
    total = planes.new_zeros(3, planes.shape[1] // 2, planes.shape[2] // 2)
    for part, _ in _in_blocks(planes, total):
        total.addcmul_(part, part) if squared else total.add_(part)
    return total.div_(4)


def _window_means(blocks: Tensor, reach: int) -> Tensor:
    """Means of each block and so many on each side, of what there is of them; one axis after the other."""
    for axis in (1, 2):
        length, width = blocks.shape[axis], 2 * reach + 1
        border = [0, 0, 0, 0]
        border[4 - 2 * axis : 6 - 2 * axis] = reach, reach
        # Sums of 1, 2, 4 ... in a row, of which the window's is made: fewer additions than it has blocks.
        sums, total, first = F.pad(blocks, border), blocks.new_zeros(blocks.shape), 0
        for power in range(width.bit_length()):
            if width >> power & 1:
                total += sums.narrow(axis, first, length)
                first += 1 << power
            rest = sums.shape[axis] - (1 << power)
            if width >> power > 1:
                sums = sums.narrow(axis, 0, rest) + sums.narrow(axis, 1 << power, rest)
        place = torch.arange(length, device=blocks.device)
        count = (place.clamp(max=reach) + (length - 1 - place).clamp(max=reach) + 1).to(blocks)
        blocks = total.div_(count[:, None] if axis == 1 else count)
    return blocks


def grown(window: Window, size: tuple[int, int]) -> tuple[Window, tuple[slice, slice]]:
    """A window with all around that decides about it, inside a frame of `size`, and where it lies in that.

    It begins and ends with whole 2x2 blocks of the frame.
    """
    spans = []
    for start, length, end in ((window[1], window[3], size[0]), (window[0], window[2], size[1])):
        first, last = max(start - REACH, 0) // 2 * 2, min(-(-(start + length + REACH) // 2) * 2, end)
        spans.append((first, last - first, slice(start - first, start - first + length)))
    (y, height, rows), (x, width, cols) = spans
    return (x, y, width, height), (rows, cols)


def add_detail(encoded: Pixels, burst: Burst, ratio: float, rows: range, cols: range) -> None:
    """Bring detail back to a restored picture in balanced camera colour, uint16 `[h, w, 3]`, in place.

    `rows` and `cols` say which of the scene's full-size picture, from its red origin, it shows.
    """
    noise = measure_noise(burst)
    carried = plain_noise(noise, ratio, burst.reference.wb_gains)

    def bring_back(strip: _Strip) -> None:
        span, above, below = strip
        for top in range(span.start, span.stop, BAND_ROWS):
            stop = min(top + BAND_ROWS, span.stop)
            after = encoded[stop : stop + REACH] if stop < span.stop else below
            now = np.concatenate((above, encoded[top:stop], after)).transpose(2, 0, 1).copy()
            first, last = top - len(above), stop + len(after)
            shown = _block_means(torch.from_numpy(to_linear(now)))
            light = plain_light(burst, ratio, noise, rows[first:last])[..., cols.start : cols.stop]
            plain = torch.from_numpy(to_encoded(light.numpy()).astype(np.float32)).div_(WHITE)
            restored = torch.from_numpy(now.astype(np.float32)).div_(WHITE)
            better = recovered(restored, plain, shown, _block_means(light), carried)[:, top - first : stop - first]
            above = encoded[max(stop - REACH, 0) : stop].copy()
            for colour, values in enumerate(better.mul_(WHITE).add_(0.5).clamp_(0, WHITE).numpy()):
                encoded[top:stop, :, colour] = values.astype(np.uint16)

    at_once(bring_back, [_strip(encoded, span) for span in spans(len(rows), BAND_ROWS)])


class _Strip(NamedTuple):
    """Rows that one thread changes, and copies of those beside them, which others change."""

    rows: range
    above: Pixels
    below: Pixels


def _strip(encoded: Pixels, rows: range) -> _Strip:
    above, below = encoded[max(rows.start - REACH, 0) : rows.start], encoded[rows.stop : rows.stop + REACH]
    return _Strip(rows, above.copy(), below.copy())


def detailed(encoded: Tensor, burst: Burst, ratio: float, rows: range, cols: range) -> Tensor:
    """What `add_detail` does, for an int32 picture `[h, w, 3]` on a device, with a few large steps; a new one."""
    noise = measure_noise(burst)
    carried = plain_noise(noise, ratio, burst.reference.wb_gains, encoded.device)
    bands = []
    for top in range(0, len(rows), LARGE_BAND_ROWS):
        first, stop = max(top - REACH, 0), min(top + LARGE_BAND_ROWS, len(rows))
        last = min(stop + REACH, len(rows))
        light = plain_light(burst, ratio, noise, rows[first:last])[..., cols.start : cols.stop].to(encoded.device)
        now = encoded[first:last].permute(2, 0, 1) / WHITE
        shown, seen = _block_means(decode(now)), _block_means(light)
        better = recovered(now, encode(light.clamp_(0, 1)), shown, seen, carried)[:, top - first : stop - first]
        bands.append(better.mul_(WHITE).add_(0.5).to(torch.int32).clamp_(0, WHITE).permute(1, 2, 0))
    return torch.cat(bands)


def without_outliers(planes: Tensor, noise: NoiseLevel) -> Tensor:
    """Packed planes `[C, h, w]` whose values stand out from all eight around no further than noise lets them.

    Hot and dead pixels stand above the noise too, and are no detail.
    """
    height, width = planes.shape[1:]
    around = F.pad(planes[None], (1, 1, 1, 1), mode="reflect" if min(height, width) > 1 else "replicate")[0]
    near = [around[:, y : y + height, x : x + width] for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    highest, lowest = near[0].clone(), near[0].clone()
    for each in near[1:]:
        torch.maximum(highest, each, out=highest)
        torch.minimum(lowest, each, out=lowest)
    for limit, sign in ((highest, OUTLIER), (lowest, -OUTLIER)):
        limit.add_((noise.shot * limit.clamp(min=0) + noise.read).sqrt_(), alpha=sign)
    return torch.minimum(torch.maximum(planes, lowest), highest)


def plain_light(burst: Burst, ratio: float, noise: NoiseLevel, rows: range) -> Tensor:
    """Rows of the scene amplified, balanced and demosaiced, `[3, n, w]`, linear camera colour from the red origin.

    Values end at white, but noise may take them below black.
    """
    margin = REACH_PX + 1  # a row more, whose neighbours decide about it
    low = max(rows.start // 2 - margin, 0)
    high = min(-(-rows.stop // 2) + margin, burst.size[0])
    packed = without_outliers(burst.average(low, high, clip=False), noise)
    gains = torch.tensor(burst.reference.wb_gains, device=packed.device)
    light = demosaic(amplify(packed, ratio, gains, "wb"), clip=False)
    return light[:, rows.start - 2 * low : rows.stop - 2 * low].clamp_(max=1)
