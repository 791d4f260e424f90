"""Every metric of a picture against its reference. To add one: write its file, add its entry."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lowlight.metrics.fidelity import mae, psnr, ssim


@dataclass(frozen=True)
class Metric:
    """A metric: how to compute it from `[C, H, W]` picture and reference, its unit, and which way is better.

    `compute` gives None where the metric does not apply, and may give inf; neither belongs in a mean.
    """

    compute: Callable[[Tensor, Tensor], float | None]
    unit: str
    higher_is_better: bool


METRICS: dict[str, Metric] = {
    "psnr": Metric(psnr, "dB", higher_is_better=True),
    "ssim": Metric(ssim, "", higher_is_better=True),
    "mae": Metric(mae, "", higher_is_better=False),
}
