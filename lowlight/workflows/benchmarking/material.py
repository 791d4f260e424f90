"""What is measured with: generated dark frames and random weights, so that a benchmark needs no data."""

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.checkpoint import save_weights
from lowlight.core.errors import UsageError
from lowlight.core.photo import RGGB
from lowlight.models import build_model, model_config
from lowlight.writers.cfa_dng import write_cfa_dng

RATIO = 100.0  # how many times too dark a frame is
THESIS_SIZE = (2848, 4256)  # of the camera that the thesis' times are for: 12 megapixels
MEGAPIXELS = (0.1, 400.0)
BLACK_DN, WHITE_DN, READ_NOISE_DN = 512, 16383, 1.3
# A camera's matrix (XYZ to camera colour), so that developing has work to do.
_MATRIX = ((0.7374, -0.2389, -0.0551), (-0.5435, 1.3162, 0.2519), (-0.1006, 0.1795, 0.6552))
_BAND_ROWS = 256


def frame_size(megapixels: float) -> tuple[int, int]:
    """Height and width, even, in the shape of a photo; 12 megapixels are the thesis' 2848 x 4256."""
    if not MEGAPIXELS[0] <= megapixels <= MEGAPIXELS[1]:
        raise UsageError(
            f"a frame of {megapixels:g} megapixels is not measured; expected {MEGAPIXELS[0]:g} to {MEGAPIXELS[1]:g}"
        )
    height, width = THESIS_SIZE
    if megapixels == 12:
        return height, width
    scale = math.sqrt(megapixels * 1e6 / (height * width))
    return 2 * round(height * scale / 2), 2 * round(width * scale / 2)


def write_frame(path: Path, height: int, width: int) -> None:
    """Write a dark 14-bit CFA DNG of smooth light with detail, shot noise and read noise; always the same one."""
    rng = np.random.default_rng(0)
    reading = np.empty((height, width), dtype=np.uint16)
    xs = np.arange(width, dtype=np.float32)
    for top in range(0, height, _BAND_ROWS):
        ys = np.arange(top, min(top + _BAND_ROWS, height), dtype=np.float32)[:, None]
        light = 0.16 + 0.08 * np.sin(xs / 97) * np.cos(ys / 61) + 0.04 * np.sign(np.sin(xs / 13 + ys / 29))
        electrons = rng.poisson(light * (WHITE_DN - BLACK_DN) / RATIO)
        noisy = BLACK_DN + electrons + rng.normal(0, READ_NOISE_DN, light.shape)
        reading[top : top + _BAND_ROWS] = np.clip(np.rint(noisy), 0, WHITE_DN)
    write_cfa_dng(
        path,
        reading,
        pattern=RGGB,
        black=(BLACK_DN,) * 4,
        white=WHITE_DN,
        wb=(2.0, 1.0, 1.6, 1.0),
        xyz_to_camera=_MATRIX,
    )


def photo_like(height: int, width: int) -> npt.NDArray[np.uint16]:
    """A bright picture, uint16 `[height, width, 3]`: smooth light, edges, and noise of half a step of 8 bits."""
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    light = 0.4 + 0.3 * np.sin(xs / 97) * np.cos(ys / 61) + 0.1 * np.sign(np.sin(xs / 13 + ys / 29))
    colours = light[..., None] * np.array([1.0, 0.9, 0.7], dtype=np.float32)
    noisy = colours + rng.normal(0, 0.5 / 255, colours.shape)
    return np.asarray(np.clip(noisy, 0, 1) * 65535 + 0.5).astype(np.uint16)


def write_weights(path: Path, name: str, upscale: int) -> None:
    """Write random weights of a model that keep a signal alive; what they cost does not depend on their values."""
    config = model_config(name, {"upscale": upscale, "init": "kaiming"})
    save_weights(path, name, config, build_model(name, config).state_dict(), trained={}, scores={})


def write_folder(folder: Path, frame: Path, photos: int) -> list[Path]:
    """Fill a folder with that many names of one frame; links, where the disk has them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:06}{frame.suffix}" for index in range(photos)]
    for path in paths:
        try:
            os.link(frame, path)
        except OSError:
            path.write_bytes(frame.read_bytes())
    return paths
