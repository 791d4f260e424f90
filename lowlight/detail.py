"""What a network smoothed away and the plain picture still shows, brought back.

The plain picture differs from the restored one by its noise and by what the restored one lost. Where the difference is
larger than noise explains, the excess is content: a Wiener filter of the difference, from its power in a small window
and the noise of the frame, takes the noise out and leaves the rest to be added. In deep shadow next to nothing is
added, in a well exposed photo nearly all.
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
from lowlight.raw.develop import to_encoded

WINDOW_BLOCKS = 5  # of 2x2 pixels of the sensor, in which the power of the difference is measured
REACH = 4 * (WINDOW_BLOCKS // 2)  # rows and columns around a pixel that decide about it: of its coarse part's power
# The difference counts from so many times the noise on. Less gives a higher PSNR and coloured blotches in dark asphalt.
CERTAINTY = 4.0
COARSE_NOISE = 1.0  # of a pixel's variance, in the window's mean: far more than white noise has, shadows are uneven
OUTLIER = 3.0  # standard deviations of noise by which a pixel may stand out from all around
_NOTHING = 1e-12
BAND_ROWS, LARGE_BAND_ROWS = 64, 1024  # of the picture, brought back at a time; on a device
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


def encoded_variance(noise: NoiseLevel, ratio: float, gains: PerColour) -> Tensor:
    """Variance of the noise of encoded values R, G and B, `[3, 65536]` by the value."""
    slope = _slope()
    light = decode(torch.arange(WHITE + 1, dtype=torch.float64) / WHITE)
    gain = ratio * torch.tensor(gains, dtype=torch.float64)[:3, None]
    return ((gain * noise.shot * light + gain.square() * noise.read) * slope.square()).float()


@cache
def _slope() -> Tensor:
    """By how much an encoded value changes with light, at each of 65536 values."""
    light = decode(torch.arange(-1, WHITE + 2, dtype=torch.float64).clamp(0, WHITE) / WHITE)
    ends = torch.full((WHITE + 1,), 2.0, dtype=torch.float64)
    ends[0] = ends[-1] = 1.0
    return ends / WHITE / (light[2:] - light[:-2])


def recovered(restored: Tensor, plain: Tensor, variances: Tensor) -> Tensor:
    """`restored [3, h, w]` with what `plain` shows beyond noise; encoded, in [0, 1]; `plain` is lost.

    `variances [3, 65536]` are the noise's by the restored value, see `encoded_variance`. What is coarse, the mean of
    the difference in the window, and what is fine, the rest of it, are judged apart, so that a tint that comes back
    does not bring noise along. Each 2x2 block has its own shares.
    """
    difference = plain.sub_(restored)
    coarse = _window_means(_block_means(difference))
    for part, tint in _in_blocks(difference, coarse):
        part.sub_(tint)  # what is fine is left
    levels = (_block_means(restored) * WHITE).long().clamp_(0, WHITE)
    noise = torch.stack([values[level] for values, level in zip(variances, levels, strict=True)]).mul_(CERTAINTY)
    share_of_fine = 1 - noise / _window_means(_block_means(difference, squared=True)).clamp_(min=_NOTHING)
    share_of_coarse = 1 - noise.mul_(COARSE_NOISE) / coarse.square().clamp_(min=_NOTHING)
    shares = torch.cat((share_of_fine.clamp_(0, 1), coarse.mul_(share_of_coarse.clamp_(0, 1))))
    for part, (share, tint) in _in_blocks(difference, shares.view(2, *coarse.shape)):
        part.mul_(share).add_(tint)
    return difference.add_(restored)


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


def _window_means(blocks: Tensor) -> Tensor:
    """Means of the blocks around each, of what there is of them; one axis after the other."""
    for axis in (1, 2):
        length = blocks.shape[axis]
        near = [(shift, max(length - shift, 0)) for shift in range(1, WINDOW_BLOCKS // 2 + 1)]
        total, count = blocks.clone(), blocks.new_ones(length)
        for shift, rest in near:
            for target, source in ((shift, 0), (0, shift)):
                total.narrow(axis, min(target, length), rest).add_(blocks.narrow(axis, min(source, length), rest))
                count.narrow(0, min(target, length), rest).add_(1)
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
    variances = encoded_variance(noise, ratio, burst.reference.wb_gains)

    def bring_back(strip: _Strip) -> None:
        span, above, below = strip
        for top in range(span.start, span.stop, BAND_ROWS):
            stop = min(top + BAND_ROWS, span.stop)
            after = encoded[stop : stop + REACH] if stop < span.stop else below
            now = np.concatenate((above, encoded[top:stop], after)).transpose(2, 0, 1).astype(np.float32, order="C")
            first, last = top - len(above), stop + len(after)
            plain = torch.from_numpy(plain_picture(burst, ratio, noise, rows[first:last], cols))
            better = recovered(torch.from_numpy(now).div_(WHITE), plain, variances)[:, top - first : stop - first]
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
    variances = encoded_variance(noise, ratio, burst.reference.wb_gains).to(encoded.device)
    bands = []
    for top in range(0, len(rows), LARGE_BAND_ROWS):
        first, stop = max(top - REACH, 0), min(top + LARGE_BAND_ROWS, len(rows))
        last = min(stop + REACH, len(rows))
        seen, inside = _demosaiced(burst, ratio, noise, rows[first:last])
        plain = encode(seen[:, inside, cols.start : cols.stop]).to(encoded.device)
        now = encoded[first:last].permute(2, 0, 1) / WHITE
        better = recovered(now, plain, variances)[:, top - first : stop - first]
        bands.append(better.mul_(WHITE).add_(0.5).to(torch.int32).clamp_(0, WHITE).permute(1, 2, 0))
    return torch.cat(bands)


def plain_picture(burst: Burst, ratio: float, noise: NoiseLevel, rows: range, cols: range) -> npt.NDArray[np.float32]:
    """A window of the scene amplified, balanced, demosaiced and encoded, `[3, h, w]`; camera colour."""
    seen, inside = _demosaiced(burst, ratio, noise, rows)
    return to_encoded(seen[:, inside, cols.start : cols.stop].numpy()).astype(np.float32) / np.float32(WHITE)


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


def _demosaiced(burst: Burst, ratio: float, noise: NoiseLevel, rows: range) -> tuple[Tensor, slice]:
    """Linear rows around those that are wanted, `[3, n, w]`, and which of them these are."""
    margin = REACH_PX + 1  # a row more, whose neighbours decide about it
    low = max(rows.start // 2 - margin, 0)
    high = min(-(-rows.stop // 2) + margin, burst.size[0])
    packed = without_outliers(burst.average(low, high), noise)
    gains = torch.tensor(burst.reference.wb_gains, device=packed.device)
    return demosaic(amplify(packed, ratio, gains, "wb")), slice(rows.start - 2 * low, rows.stop - 2 * low)
