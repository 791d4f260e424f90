"""Dark RAW frames of whole photographs, for judging on pictures that no training saw.

Everything but the noise is kept plain, so that what is measured is the network: no lamps, no tint, one mean light, and
the sensor of a middling camera.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.errors import UsageError
from lowlight.core.photo import RGGB, Metadata, RawFrame
from lowlight.data.bursts import burst_margin, mosaic_of
from lowlight.data.cameras import draw_matrices
from lowlight.data.noise import BLACK_DN, WHITE_DN, NoiseConfig, Sensor, expose_again, uniform
from lowlight.data.synthetic import SyntheticConfig, light_of
from lowlight.ops.color import apply_matrix, encode
from lowlight.ops.resampling import resample

WB = (2.0, 1.0, 1.8, 1.0)
MEAN_LIGHT = 0.12
GAIN_DN, READ_DN = 0.9, 1.35
TRUTH_EXPOSURE_S = 10.0
SMALLEST_PX = 32


def dark_frame(photo: npt.NDArray[np.uint8], ratio: float, seed: int) -> tuple[RawFrame, Tensor]:
    """Make a dark frame of a photo `[H, W, 3]` (sRGB), and its truth `[3, H, W]`, encoded; odd sizes lose a row."""
    frames, truth = synthetic_burst(photo, 1, ratio, seed)
    return frames[0], truth


def synthetic_burst(
    photo: npt.NDArray[np.uint8],
    frames: int,
    ratio: float | Sequence[float],
    seed: int,
    shake_px: float = 0.0,
    spare_px: int = 0,
) -> tuple[list[RawFrame], Tensor]:
    """Make dark frames of one photo `[H, W, 3]` (sRGB), not aligned, and the truth of the first, `[3, H', W']` encoded.

    `ratio` darkens all, or each its own. All but the first are moved by up to `shake_px` packed pixels along each
    axis. To show nothing from beyond the photo, frames that move are smaller than it; `spare_px` packed pixels are
    cut from every side in any case, so that frames which move and frames which do not can be compared. The same seed
    and cut give the same light and first frame, however many others there are and however they move.
    """
    ratios = [float(ratio)] * frames if isinstance(ratio, int | float) else [float(each) for each in ratio]
    if frames < 1 or len(ratios) != frames or min(ratios) < 1:
        raise UsageError(f"{frames} frames with ratios {ratios} cannot be made; give each frame a ratio of at least 1")
    margin = max(burst_margin(shake_px, 0), spare_px)
    height, width = (size // 2 * 2 for size in photo.shape[:2])
    if min(height, width) - 4 * margin < SMALLEST_PX:
        raise UsageError(
            f"a photo of {width}x{height} is too small for frames that move by {shake_px:g} packed pixels; use a larger"
        )
    generator = torch.Generator().manual_seed(seed)
    crop = torch.from_numpy(photo[:height, :width].copy()).movedim(-1, 0)[None].float() / 255
    matrix = draw_matrices(1, generator)
    plain = SyntheticConfig(lamp_share=0, tint=0, warmth=0, mean_light=(MEAN_LIGHT, MEAN_LIGHT))
    camera = apply_matrix(light_of(crop, plain, generator), matrix).clamp(0, 1)
    to_srgb = torch.linalg.inv(matrix)[0]
    inner = (slice(2 * margin, height - 2 * margin), slice(2 * margin, width - 2 * margin))
    truth = encode(apply_matrix(camera[0], to_srgb).clamp(0, 1))[:, inner[0], inner[1]]

    raw = camera[0] / torch.tensor(WB)[:3, None, None]
    hand = torch.Generator().manual_seed(seed + 1_000_003)
    shifts = [(0.0, 0.0)] + [tuple(uniform(2, -shake_px, shake_px, hand).tolist()) for _ in range(frames - 1)]
    made, pattern = [], None
    for index, (each, (down, right)) in enumerate(zip(ratios, shifts, strict=True)):
        noise = torch.Generator().manual_seed(seed + 7919 * index) if index else generator
        moved = resample(raw, (-2 * down, -2 * right)).clamp_(min=0)[:, inner[0], inner[1]]
        clean = mosaic_of(moved[None]) / each
        reading, pattern = expose_again(clean, _middling_sensor(), NoiseConfig(), noise, pattern)
        made.append(_as_frame(reading[0], each, to_srgb))
    return made, truth


def _middling_sensor() -> Sensor:
    return Sensor(
        gain=torch.tensor([GAIN_DN]),
        read=torch.tensor([READ_DN]),
        tail=torch.tensor([0.1]),
        row=torch.tensor([0.1]),
        black_error=torch.zeros(1, 4),
        hot_share=torch.tensor([1e-5]),
        step=torch.tensor([1.0]),
    )


def _as_frame(reading: Tensor, ratio: float, to_srgb: Tensor) -> RawFrame:
    return RawFrame(
        mosaic=reading.numpy().astype(np.uint16),
        pattern=RGGB,
        black=(BLACK_DN,) * 4,
        white=(WHITE_DN,) * 4,
        wb=WB,
        wb_source="user",
        camera_to_srgb=to_srgb.numpy(),
        metadata=Metadata(exposure_s=TRUTH_EXPOSURE_S / ratio),
    )
