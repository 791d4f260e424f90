"""Masks of random ellipses: what a frame of an incomplete picture shows.

Source: F. Duffhauss et al., "FusionVAE" (ECCV 2022), section 5.1: the union of ellipses of random size, shape and
place. Sizes and places follow the authors' configuration.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lowlight.core.errors import ConfigError

CENTRE_MARGIN_PX = (1, 2)  # a centre is at least 1 and less than side - 2
STRETCH = (0.5, 1.5)  # of the squared axes; its inverse applies to the other axis


@dataclass(frozen=True)
class EllipseLaw:
    """How the ellipses of one mask are drawn: how many, and their integer radius, both ends included."""

    count: int
    radius_px: tuple[int, int]

    def __post_init__(self) -> None:
        low, high = self.radius_px
        if self.count < 1 or not 0 <= low <= high:
            raise ConfigError(
                f"a mask of {self.count} ellipses with radii {low} to {high} px cannot be drawn; "
                "expected at least one ellipse and radii from 0 up"
            )


def ellipse_masks(number: int, side_px: int, law: EllipseLaw, generator: Generator) -> Tensor:
    """Draw masks, bool `[number, side, side]` with True = visible, on the generator's device.

    A pixel (v down, u right) is inside an ellipse where `e (u - cu)^2 + (v - cv)^2 / e <= r^2`, with integer r from
    the law, integer centres in {1, ..., side - 3}^2 and e ~ U(0.5, 1.5).
    """
    device, shape = generator.device, (number, law.count)
    low, high = law.radius_px
    first, last = CENTRE_MARGIN_PX
    radius = torch.randint(low, high + 1, shape, generator=generator, device=device)
    centre = torch.randint(first, side_px - last, (2, *shape), generator=generator, device=device)
    stretch = torch.empty(shape, device=device).uniform_(*STRETCH, generator=generator)
    place = torch.arange(side_px, device=device) - centre[..., None]  # [2, number, count, side]
    squared = place.square().float()
    across, down = squared[0] * stretch[..., None], squared[1] / stretch[..., None]
    reach = radius.square().float()[..., None] - across
    masks = torch.zeros(number, side_px, side_px, dtype=torch.bool, device=device)
    for ellipse in range(law.count):  # one at a time: the sum of both axes is the only large array
        masks |= down[:, ellipse, :, None] <= reach[:, ellipse, None, :]
    return masks
