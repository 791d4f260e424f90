"""Smooth random grades: what a user does to a picture's tone and colour, drawn at random for training."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight.core.restoration import Share

GAIN = 0.4  # largest logarithm of the brightness gain
TINT = 0.15  # largest logarithm of each channel's own gain
TONE = 0.5  # largest strength of the tone curve x + t x (1 - x), which is monotone up to 1
GRID = 3  # control points along each side of a patch: the grade varies slowly


@dataclass(frozen=True)
class Grade:
    """Gains and tone strengths at `GRID x GRID` control points, `[B, C, 3, 3]` each; `on [B, 1, 1, 1]` is bool."""

    log_gain: Tensor
    tone: Tensor
    on: Tensor

    def __call__(self, picture: Tensor) -> Tensor:
        """Grade `[B, C, h, w]` of any size that shows the same patch; items that are not `on` stay as they are."""
        gain, tone = (_field(values, picture) for values in (self.log_gain.exp(), self.tone))
        graded = gain * (picture + tone * picture * (1 - picture))
        return torch.where(self.on, graded, picture)


def draw_grade(
    like: Tensor, probability: float, generator: torch.Generator | None, share: Share | None = None
) -> Grade:
    """Draw a grade for each item of `[B, C, h, w]`, switched on with `probability`."""
    channels = like.shape[1]
    numbers = 2 * uniform_rows(like, (1 + channels + 1) * GRID * GRID, generator, share) - 1
    numbers = numbers.view(-1, channels + 2, GRID, GRID)
    gain, tint, tone = numbers[:, :1], numbers[:, 1:-1], numbers[:, -1:]
    on = uniform_rows(like, 1, generator, share) < probability
    return Grade(GAIN * gain + TINT * tint, TONE * tone.expand(-1, channels, -1, -1), on.view(-1, 1, 1, 1))


def uniform_rows(like: Tensor, numbers: int, generator: torch.Generator | None, share: Share | None = None) -> Tensor:
    """Uniform numbers in [0, 1) `[B, numbers]` for the items of a tensor, those of its share of a larger batch."""
    count = len(like) if share is None else share.whole
    device = generator.device if generator is not None else like.device
    rows = torch.rand((count, numbers), generator=generator, device=device)
    if share is not None:
        rows = rows[share.first : share.first + len(like)]
    return rows.to(like.device)


def _field(values: Tensor, picture: Tensor) -> Tensor:
    return F.interpolate(values, picture.shape[-2:], mode="bilinear", align_corners=False).to(picture.dtype)
