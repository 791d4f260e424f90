"""An exponential-family prior of polynomials, and draws from a density of which only the gradient is known.

`log p(z) = sum over d and m = 1..M of c[m, d] z_d^m - log Z`; Z is never needed. Source: K. Elkhalil et al., Fisher
Auto-Encoders, AISTATS 2021. The draws are by Stein variational gradient descent, Q. Liu, D. Wang, NeurIPS 2016.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lowlight.core.errors import LowlightError

BOX = 4.0  # draws stay in [-4, 4]: such a polynomial need not fall towards infinity
MOST_AT_BORDER = 0.5  # fraction of the draws, for any of their coordinates
_DECAY, _TINY = 0.9, 1e-6  # of the step sizes' average


def score(coefficients: Tensor, z: Tensor) -> Tensor:
    """Gradient of the log-density, `sum of m c[m, d] z_d^(m - 1)`, shaped like z `[B, Z]`."""
    orders = range(1, len(coefficients) + 1)
    return torch.stack([m * c * z ** (m - 1) for m, c in zip(orders, coefficients, strict=True)]).sum(0)


@torch.no_grad()
def draw_by_svgd(
    gradient: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 2000, rate: float = 1e-2, box: float = BOX
) -> Tensor:
    """Move points `[n, Z]` until they are draws of the density whose log has this gradient, n at least 2.

    Kernel `exp(-|a - b|^2 / h)` with `h = median^2 / log(n + 1)`, steps scaled as by AdaGrad. Points are kept in
    `[-box, box]`. Raises `LowlightError` where they are not finite, or where more than half of them end at the border
    in any coordinate: that density has no peak inside.
    """
    points, scale = start.clone(), torch.zeros_like(start)
    for step in range(steps):
        gaps = points[:, None] - points[None]
        squares = gaps.square().sum(2)
        others = squares[~torch.eye(len(points), dtype=torch.bool, device=points.device)]
        width = (others.median() / math.log(len(points) + 1)).clamp_min(_TINY)
        kernel = (-squares / width).exp()
        push = 2 / width * (kernel[..., None] * gaps).sum(1)
        move = (kernel @ gradient(points) + push) / len(points)
        scale = move.square() if step == 0 else _DECAY * scale + (1 - _DECAY) * move.square()
        points = (points + rate * move / (scale.sqrt() + _TINY)).clamp(-box, box)
    if not bool(points.isfinite().all()):
        raise LowlightError("the draws from the learned prior are not finite; train it with a lower learning rate")
    if float((points.abs() >= box).float().mean(0).amax()) > MOST_AT_BORDER:
        raise LowlightError(
            f"the draws from the learned prior ran to the border of [-{box:g}, {box:g}]; it has no peak inside, "
            "train it longer or use the normal prior"
        )
    return points
