"""How close a picture is to its reference: PSNR, SSIM and the mean absolute error.

Pictures are tensors `[C, H, W]`, encoded, in [0, 1], of any floating type and on any device. Everything is
computed in float64, a band at a time, of one channel or of many small ones: a large picture needs little memory beside
itself.
"""

import math
from collections.abc import Iterator

from torch import Tensor

from lowlight.core.errors import DataError

SSIM_SIGMA_PX = 1.5
SSIM_RADIUS_PX = 5  # 11 taps: the window of the SSIM paper
SSIM_K1, SSIM_K2 = 0.01, 0.03
BAND_ROWS = 64  # small enough for the intermediate values of a band to stay in the cache
BAND_VALUES = 1 << 17  # up to which channels are taken together


def psnr(picture: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio `10 log10(1 / MSE)` in dB over all channels and pixels; inf if identical."""
    squares = sum(float((a - b).square_().sum()) for a, b in _bands(picture, reference))
    return math.inf if squares == 0 else 10 * math.log10(picture.numel() / squares)


def mae(picture: Tensor, reference: Tensor) -> float:
    """Mean absolute error over all channels and pixels."""
    return sum(float((a - b).abs_().sum()) for a, b in _bands(picture, reference)) / picture.numel()


def ssim(picture: Tensor, reference: Tensor) -> float | None:
    """Structural similarity, the mean over pixels and channels; None for fewer than 11 pixels high or wide.

    Source: Z. Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE
    TIP 2004. Gaussian window of 11 taps with sigma 1.5, population covariance, data range 1; the 5 pixels
    along the border, where the window would leave the picture, do not count.
    """
    window = 2 * SSIM_RADIUS_PX + 1
    if min(picture.shape[-2:]) < window:
        return None
    taps = _gaussian_taps()
    total = 0.0
    for a, b in _bands(picture, reference, window - 1):
        total += float(_ssim_map(a, b, taps).sum())
    channels, height, width = picture.shape
    return total / (channels * (height - window + 1) * (width - window + 1))


def _bands(picture: Tensor, reference: Tensor, halo: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield both as float64 bands `[c, n + halo, W]` of a few channels; bands start n rows apart."""
    if picture.shape != reference.shape:
        raise DataError(
            f"a picture of {_size(picture)} cannot be compared with a reference of {_size(reference)}; "
            "both must have the same size and channels"
        )
    channels, height, width = picture.shape
    together = max(BAND_VALUES // (min(height, BAND_ROWS + halo) * width), 1)
    for first in range(0, channels, together):
        a, b = picture[first : first + together], reference[first : first + together]
        for top in range(0, height - halo, BAND_ROWS):
            rows = slice(top, top + BAND_ROWS + halo)
            yield a[:, rows].double(), b[:, rows].double()


def _size(picture: Tensor) -> str:
    channels, height, width = picture.shape
    return f"{height}x{width} pixels and {channels} channels"


def _gaussian_taps() -> list[float]:
    """Half of the symmetric window, centre first; the whole sums to 1."""
    taps = [math.exp(-0.5 * (offset / SSIM_SIGMA_PX) ** 2) for offset in range(SSIM_RADIUS_PX + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    return [tap / total for tap in taps]


def _blur(band: Tensor, taps: list[float]) -> Tensor:
    """Separable Gaussian along rows and columns, only where the window fits."""
    for axis in (-2, -1):
        inner = band.shape[axis] - 2 * SSIM_RADIUS_PX
        blurred = band.narrow(axis, SSIM_RADIUS_PX, inner) * taps[0]
        for offset, tap in enumerate(taps[1:], start=1):
            blurred.add_(band.narrow(axis, SSIM_RADIUS_PX - offset, inner), alpha=tap)
            blurred.add_(band.narrow(axis, SSIM_RADIUS_PX + offset, inner), alpha=tap)
        band = blurred
    return band


def _ssim_map(a: Tensor, b: Tensor, taps: list[float]) -> Tensor:
    mean_a, mean_b = _blur(a, taps), _blur(b, taps)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance = _blur(a * b, taps) - product
    # Only the sum of both variances is needed, so one blur does for two.
    variances = _blur(a.square() + b.square(), taps) - squares
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
