"""Every metric of a picture against its reference, by name. To add one: write its file, add its entry."""

from collections.abc import Callable

from torch import Tensor

from lowlight.metrics.fidelity import mae, psnr, ssim

# Of picture and reference `[C, H, W]`; None where a metric does not apply. Neither that nor inf belongs in a mean.
METRICS: dict[str, Callable[[Tensor, Tensor], float | None]] = {"psnr": psnr, "ssim": ssim, "mae": mae}
