"""Classical pictures to compare a network with: amplified and developed, and the same after wavelet denoising."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lowlight.core.errors import UsageError
from lowlight.core.photo import RawFrame
from lowlight.ops.color import encode
from lowlight.ops.demosaic import REACH_PX, demosaic
from lowlight.ops.exposure import amplify, packed_to_rgb
from lowlight.raw.bayer import in_blocks, origin_padding, pack, packed_size
from lowlight.raw.develop import develop

Pixels = npt.NDArray[np.uint16]
BAND_ROWS = 256  # packed rows developed at a time
# What scores best on the sixteen real pairs of the See-in-the-Dark set. Interpolation correlates the noise of
# neighbouring pixels, so BayesShrink's thresholds, which take it for independent, only fit pictures of half size.
WAVELET = {"wavelet": "db1", "mode": "soft", "convert2ycbcr": True, "rescale_sigma": True}
WAVELET_METHOD = {"half": "BayesShrink", "full": "VisuShrink"}


def amplified(frame: RawFrame, ratio: float, *, half: bool) -> Pixels:
    """Amplify, balance, demosaic and develop one frame without any denoising.

    Returns uint16 `[H, W, 3]` in sRGB primaries and LibRaw's curve, not turned: of the mosaic's size by the filters
    of Malvar, He and Cutler, or with `half` one pixel for each 2x2 block.
    """
    sizes = frame.size
    frame = in_blocks(frame) if half else frame
    height, _ = packed_size(frame.size, frame.pattern)
    gains = torch.tensor(frame.wb_gains)
    top, left = origin_padding(frame.pattern)
    scale = 1 if half else 2
    rows, cols = ((size + 1) // 2 if half else size for size in sizes)
    picture = np.empty((rows, cols, 3), dtype=np.uint16)
    for start in range(0, height, BAND_ROWS):
        stop = min(start + BAND_ROWS, height)
        low, high = max(start - REACH_PX, 0), min(stop + REACH_PX, height)
        planes = amplify(pack(frame, low, high), ratio, gains, "wb")
        rgb = packed_to_rgb(planes) if half else demosaic(planes)
        rgb = rgb[:, scale * (start - low) : scale * (stop - low), left : left + cols]
        encoded = (encode(rgb) * 65535 + 0.5).movedim(0, -1).numpy().astype(np.uint16)
        first = scale * start - top
        skip = max(-first, 0)
        band = encoded[skip : skip + rows - max(first, 0)]
        picture[first + skip : first + skip + len(band)] = develop(band, frame.camera_to_srgb)
    return picture


def wavelet(frame: RawFrame, ratio: float, *, half: bool) -> Pixels:
    """Do as `amplified`, then shrink the picture's wavelet coefficients; the noise is estimated from the picture.

    Source: S. Chang et al., Adaptive Wavelet Thresholding for Image Denoising and Compression, IEEE TIP 2000
    (BayesShrink); D. Donoho and I. Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika 1994
    (VisuShrink); both as scikit-image has them.
    """
    picture = amplified(frame, ratio, half=half)
    denoise = _denoiser()
    clean = denoise(
        picture.astype(np.float32) / np.float32(65535),
        method=WAVELET_METHOD["half" if half else "full"],
        channel_axis=-1,
        **WAVELET,
    )
    return np.asarray(np.clip(clean, 0, 1) * 65535 + 0.5).astype(np.uint16)


def open_baseline(name: str) -> Callable[..., Pixels]:
    """Find a baseline; raises `UsageError` for an unknown one and where the library it needs is missing."""
    if name not in BASELINES:
        raise UsageError(f"There is no baseline {name!r}; there are {' and '.join(BASELINES)}.")
    if name == "wavelet":
        _denoiser()
    return BASELINES[name]


def _denoiser() -> Callable[..., npt.NDArray[np.floating[Any]]]:
    from importlib.util import find_spec

    spec = find_spec("pywt")
    if spec is None or spec.origin is None:
        raise UsageError(
            "Wavelet denoising needs PyWavelets, which is not installed; `pip install PyWavelets` brings it."
        )
    from skimage.restoration import denoise_wavelet

    return denoise_wavelet  # type: ignore[no-any-return]


BASELINES: dict[str, Callable[..., Pixels]] = {"amplified": amplified, "wavelet": wavelet}
