"""Judge weights beyond PSNR: detail on photos kept out of training, colour on other cameras' files, tile seams.

    python examples/judge_weights.py WEIGHTS --photos PHOTOS --raw FILE... --seams FILE...
    python examples/judge_weights.py WEIGHTS --bursts PHOTOS

Detail: photos that no training saw are made dark (ratio 100, the noise of a middling sensor) and restored at full
size; SSIM beside that of wavelet denoising. Colour: CIEDE2000 of 32-pixel block means against LibRaw's rendering at the
same ratio, over blocks whose signal stands above the noise. Seams: the mean step across the lines where tiles end,
against the steps one pixel beside them, and two: at full size every second step lies inside a 2x2 block of the mosaic
and is smaller, so only the second number compares like with like. 1 is no seam at all. Bursts: PSNR at full size of one
to four dark frames of such a photo, on a tripod and moved by up to 8 pixels of the sensor.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from lowlight.burst import align
from lowlight.checkpoint import load_weights
from lowlight.core.photo import RawFrame
from lowlight.data.dark_photos import dark_frame, synthetic_burst
from lowlight.data.photos import open_photos
from lowlight.metrics.color_error import BLOCK_PX, block_colour_error
from lowlight.metrics.fidelity import psnr, ssim
from lowlight.ops.exposure import block_means, packed_to_rgb
from lowlight.ops.tiling import TileGrid, dense
from lowlight.raw.bayer import pack, packed_size
from lowlight.raw.read import read_raw
from lowlight.restorer import Restorer, RestorerOptions
from lowlight.workflows.enhancing.photo_steps import meter
from lowlight.workflows.evaluating.baselines import amplified, wavelet

SIDE_PX, RATIO = 512, 100.0
PHOTOS = 20
BURSTS, FRAMES = 10, 4
SHAKE_PX, SPARE_PX = 4.0, 8  # packed pixels, two of the sensor's each


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--photos", type=Path, help="the folder or packed file that training used")
    parser.add_argument("--bursts", type=Path, help="the same, for bursts of its photos")
    parser.add_argument("--raw", type=Path, nargs="*", default=[], help="RAW files of other cameras")
    parser.add_argument("--seams", type=Path, nargs="*", default=[], help="RAW files of several tiles")
    arguments = parser.parse_args()
    restorer = Restorer(load_weights(arguments.weights)[0], RestorerOptions())
    if arguments.photos:
        detail(restorer, arguments.photos)
    if arguments.bursts:
        bursts(restorer, arguments.bursts)
    for path in arguments.raw:
        frame = read_raw(path)
        ratio = meter(frame)
        print(f"colour {path.name}: {colour(restorer, frame, ratio):.2f} at ratio {ratio:.3g}")
    for path in arguments.seams:
        one, two = seam(restorer, read_raw(path))
        print(f"seams {path.name}: {one:.3f} against one pixel beside, {two:.3f} against two")


def detail(restorer: Restorer, photos: Path) -> None:
    """SSIM at full size of restored and of wavelet-denoised pictures."""
    _, aside = open_photos(photos).split()
    ours, classical = [], []
    for index in range(min(PHOTOS, len(aside))):
        frame, truth = dark_frame(middle(aside[index]), RATIO, seed=index)
        ours.append(ssim(as_tensor(restorer.photo(frame, RATIO).pixels), truth) or 0.0)
        classical.append(ssim(as_tensor(wavelet(frame, RATIO, half=False)), truth) or 0.0)
    gain = np.array(ours) - np.array(classical)
    print(
        f"detail, {len(ours)} photos: SSIM {np.mean(ours):.3f}, wavelet {np.mean(classical):.3f}, "
        f"gain {gain.mean():.3f} (least {gain.min():.3f})"
    )


def bursts(restorer: Restorer, photos: Path) -> None:
    """PSNR at full size of bursts of kept-aside photos, frame by frame."""
    _, aside = open_photos(photos).split()
    count = min(BURSTS, len(aside))
    for shake_px in (0.0, SHAKE_PX):
        scores = np.zeros((count, FRAMES))
        for index in range(count):
            frames, truth = synthetic_burst(middle(aside[index]), FRAMES, RATIO, index, shake_px, spare_px=SPARE_PX)
            for number in range(1, FRAMES + 1):
                pixels = as_tensor(restorer.photo(align(frames[:number]), RATIO).pixels)
                scores[index, number - 1] = psnr(pixels, truth)
        told = ", ".join(f"{score:.2f}" for score in scores.mean(0))
        print(f"bursts, {count} photos, moved by up to {2 * shake_px:g} pixels: {told} dB for 1 to {FRAMES} frames")


def middle(photo: np.ndarray) -> np.ndarray:
    """The middle of a photo `[H, W, 3]`."""
    top, left = (max((size - SIDE_PX) // 2, 0) for size in photo.shape[:2])
    return photo[top : top + SIDE_PX, left : left + SIDE_PX]


def colour(restorer: Restorer, frame: RawFrame, ratio: float) -> float:
    """Mean CIEDE2000 against plain development, over blocks whose signal stands above the noise."""
    ours = as_tensor(restorer.photo(frame, ratio).pixels)
    plain = as_tensor(amplified(frame, ratio, half=restorer.traits.upscale == 1))
    signal = packed_to_rgb(pack(frame, clip=False))
    side = BLOCK_PX // 2
    mean = block_means(signal, side)
    spread = (block_means(signal.square(), side) - mean.square()).clamp(min=0).sqrt()
    clear = (mean > spread).all(0)
    errors = [
        block_colour_error(ours[:, y : y + BLOCK_PX, x : x + BLOCK_PX], plain[:, y : y + BLOCK_PX, x : x + BLOCK_PX])
        for y, x in (clear.nonzero() * BLOCK_PX).tolist()
        if y < ours.shape[1] and x < ours.shape[2]
    ]
    return float(np.mean(errors)) if errors else float("nan")


def seam(restorer: Restorer, frame: RawFrame) -> tuple[float, float]:
    """The larger of the ratios along rows and columns, against steps one and two pixels beside."""
    pixels = restorer.photo(frame, meter(frame)).pixels.astype(np.float64)
    u = restorer.traits.upscale
    grid = TileGrid.cover(*packed_size(frame.size, frame.pattern), restorer.traits.tile, dense(restorer.traits.tile))
    ratios = []
    for axis, starts in ((0, grid.rows), (1, grid.cols)):
        steps = np.abs(np.diff(pixels, axis=axis)).mean(axis=(1 - axis, 2))
        ends = np.array([u * start for start in starts[1:]] + [u * (start + grid.tile) for start in starts[:-1]]) - 1
        if not len(ends):
            continue  # one tile reaches from end to end
        at = steps[ends].mean()
        ratios.append([at / np.mean([steps[ends - away], steps[ends + away]]) for away in (1, 2)])
    if not ratios:
        return float("nan"), float("nan")
    one, two = np.max(ratios, axis=0)
    return float(one), float(two)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Uint16 `[H, W, C]` as floats `[C, H, W]`."""
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(65535)).movedim(-1, 0)


if __name__ == "__main__":
    main()
