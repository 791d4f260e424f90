"""The colour matrix of cameras that LibRaw keeps to itself, told from how it renders."""

from typing import Any

import numpy as np
import numpy.typing as npt
import rawpy

_RANGE = (256, 65000)  # values in between were clipped neither at black nor at white
_BRIGHTEST = 0.995  # quantile of the mosaic that is rendered as white: the frame may be dark
_MOST_OFF = 16  # of 65535, by which what was fitted may miss what was rendered
_FEWEST, _MANY = 64, 4096  # pixels for the fit


def rendered_matrix(raw: Any) -> npt.NDArray[np.float64] | None:
    """Fit what takes LibRaw's linear rendering in camera colour to that in sRGB, `[3, 3]`; None where nothing does.

    For some old cameras LibRaw has a matrix of its own that it renders with but does not tell. Both renderings are at
    half size, without white balance. They leave `raw` at half size: what else is wanted of it must be read before.
    """
    white = int(np.quantile(raw.raw_image_visible, _BRIGHTEST))
    camera, srgb = (_rendered(raw, space, white) for space in (rawpy.ColorSpace.raw, rawpy.ColorSpace.sRGB))
    low, high = _RANGE
    whole = ((np.minimum(camera, srgb) > low) & (np.maximum(camera, srgb) < high)).all(axis=1)
    if whole.sum() < _FEWEST:
        return None
    camera, srgb = camera[whole], srgb[whole]
    fitted, _, rank, _ = np.linalg.lstsq(camera, srgb, rcond=1e-4)
    if rank < 3 or np.abs(camera @ fitted - srgb).max() > _MOST_OFF or np.allclose(fitted, np.eye(3), atol=1e-2):
        return None
    return np.asarray(fitted.T, dtype=np.float64)


def _rendered(raw: Any, space: Any, white: int) -> npt.NDArray[np.float64]:
    """Pixels `[n, 3]` spread over the picture."""
    picture = raw.postprocess(
        output_color=space,
        half_size=True,
        user_wb=[1.0] * 4,
        user_sat=white,
        gamma=(1, 1),
        no_auto_bright=True,
        output_bps=16,
        user_flip=0,
    )
    pixels = np.asarray(picture).reshape(-1, 3)
    return pixels[:: max(len(pixels) // _MANY, 1)].astype(np.float64)
