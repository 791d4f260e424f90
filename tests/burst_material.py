"""Frames of one scene for tests: light that is known everywhere, moved by any fraction of a pixel, with noise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.core.photo import RGGB, Metadata, RawFrame
from lowlight.raw.read import read_raw
from lowlight.writers.cfa_dng import write_cfa_dng

BLACK, WHITE = 512, 16383
WB = (2.0, 1.0, 1.5, 1.0)
RATIO = 60.0
Plane = npt.NDArray[np.float64]


def light(height: int, width: int, shift: tuple[float, float] = (0.0, 0.0), scene: int = 0) -> Plane:
    """Dark light in DN: cosines of many sizes, `shift` sensor pixels further down and right."""
    rng = np.random.default_rng(100 + scene)
    rows, cols = np.mgrid[0:height, 0:width]
    rows, cols = rows - shift[0], cols - shift[1]
    total = np.zeros((height, width))
    for wave_px in np.geomspace(12, 160, 40):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        total += np.cos(2 * np.pi / wave_px * (np.cos(angle) * rows + np.sin(angle) * cols) + phase)
    return 40 + 5 * total.clip(-6, 6)


def mosaic(clean: Plane, seed: int | None, deviation: float = 6.0) -> npt.NDArray[np.uint16]:
    """DN with noise; without a seed clean but for rounding."""
    noise = 0.0 if seed is None else np.random.default_rng(seed).normal(0, deviation, clean.shape)
    return np.clip(np.round(BLACK + clean + noise), 0, WHITE).astype(np.uint16)


def frame(clean: Plane, seed: int | None = None, **metadata: Any) -> RawFrame:
    """A frame in memory, 1 s long unless told otherwise."""
    told = Metadata(**{"model": "One", "exposure_s": 1.0, "iso": 800.0, **metadata})
    given = {"black": (float(BLACK),) * 4, "white": (float(WHITE),) * 4, "wb": WB, "wb_source": "camera"}
    return RawFrame(mosaic(clean, seed), RGGB, camera_to_srgb=None, metadata=told, **given)  # type: ignore[arg-type]


def finer(clean: Plane) -> RawFrame:
    """The clean frame on a scale of sixteenths, so that rounding does not limit what is compared with it."""
    exact = np.round(4 * (BLACK + clean)).astype(np.uint16)
    four = (4.0 * BLACK,) * 4
    return replace(frame(clean), mosaic=exact, black=four, white=(4.0 * WHITE,) * 4)


def write(path: Path, clean: Plane, seed: int | None = None, **changes: Any) -> Path:
    """A frame on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {"pattern": RGGB, "black": (BLACK,) * 4, "white": WHITE, "wb": WB, "exposure_s": 1.0, "iso": 800}
    write_cfa_dng(path, mosaic(clean, seed), **{**given, **changes})
    return path


def named(clean: Plane, path: Path, **changes: Any) -> RawFrame:
    """A frame that was written and read."""
    return read_raw(write(path, clean, **changes))


def psnr(first: npt.NDArray[Any], second: npt.NDArray[Any], margin: int = 0) -> float:
    """Decibels between two uint16 pictures without a margin."""
    cut = slice(margin, -margin or None)
    difference = (first[cut, cut].astype(float) - second[cut, cut]) / 65535
    return float(-10 * np.log10(np.mean(difference**2)))
