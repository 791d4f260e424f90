"""Material for the tests of evaluation: tiny weights, noise-free RAW files and their truths."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight.checkpoint import save_weights
from lowlight.core.photo import RGGB
from lowlight.models import build_model, model_config
from lowlight.writers.cfa_dng import write_cfa_dng

BLACK, WHITE = 512, 16383
WB = (2.0, 1.0, 1.5, 1.0)
RATIO = 20.0
Pixels = npt.NDArray[np.uint16]


def make_weights(path: Path, upscale: int, *, seed: int = 0, posterior: bool = False, **more: Any) -> Path:
    """Write untrained weights of a tiny network; `more` are options of the network, or `trained` and `scores`."""
    about = {key: more.pop(key, {}) for key in ("trained", "scores")}
    options = {"base_channels": 2, "latent": 8, "upscale": upscale, "base": "lowpass"}
    colours = {"input_colour": "wb", "output_colour": "camera"}
    config = model_config("sid-net", {**options, **colours, **more})
    model = build_model("sid-net", config, seed)
    save_weights(path, "sid-net", config, model.state_dict(), with_posterior=posterior, **about)
    return path


def gray_light(height: int, width: int) -> npt.NDArray[np.float64]:
    """A smooth gray scene in linear light."""
    ys, xs = np.mgrid[0:height, 0:width]
    return 0.25 + 0.1 * np.sin(xs / 17) + 0.05 * np.cos(ys / 11)


def write_raw(path: Path, light: npt.NDArray[np.float64], ratio: float, exposure_s: float) -> None:
    """A noise-free RAW of a gray scene, `ratio` times too dark, under the white balance WB."""
    gain = np.ones_like(light)
    gain[0::2, 0::2], gain[1::2, 1::2] = WB[0], WB[2]
    mosaic = BLACK + (WHITE - BLACK) * light / gain / ratio
    write_cfa_dng(
        path,
        mosaic.round().astype(np.uint16),
        pattern=RGGB,
        black=(BLACK,) * 4,
        white=WHITE,
        wb=WB,
        exposure_s=exposure_s,
    )


def encoded(light: npt.NDArray[np.float64]) -> Pixels:
    curve = 1.0993 * light**0.45 - 0.0993
    return (np.repeat(curve[..., None], 3, 2) * 65535).round().astype(np.uint16)
