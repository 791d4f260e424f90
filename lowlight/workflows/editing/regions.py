"""Regions of an edited picture that show samples of their own: masks of the user, and how they are laid over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lowlight.core.errors import UsageError
from lowlight.data.pictures import read_picture
from lowlight.workflows.enhancing.samples import MOST_SAMPLES

INSIDE = 1 << 15  # of 65535: what is as bright or brighter is inside


@dataclass(frozen=True)
class Region:
    """A picture that is bright where a sample is to be seen; sample 0 is the edit by the priors' means."""

    mask: Path
    sample: int


def parse_region(text: str) -> Region:
    """Read `MASK:SAMPLE`; the name of the mask may itself hold colons."""
    mask, colon, number = text.rpartition(":")
    if not (colon and mask and number.isascii() and number.isdigit()):
        raise UsageError(
            f"--region is {text!r}; expected MASK:SAMPLE, a picture that is white where the sample of this number is "
            "to be seen, as in lips.png:2"
        )
    return Region(Path(mask), int(number))


def check_samples(regions: Sequence[Region], drawn: int) -> None:
    """Refuse samples that cannot be drawn or, where some were asked for, are not among these `drawn`."""
    most = drawn or MOST_SAMPLES
    for region in regions:
        if region.sample > most:
            have = f"--samples {drawn} draws 1 to {drawn}" if drawn else f"there are 1 to {MOST_SAMPLES}"
            raise UsageError(
                f"{region.mask.name} asks for sample {region.sample}, and {have}; name one of these, or 0 for the edit "
                "without any draw"
            )


def read_mask(path: Path, size: tuple[int, int]) -> Tensor:
    """Where a picture of height and width `size` is at least half as bright as white, `[1, 1, h, w]`, bool.

    The brightest colour of a pixel counts, so that a mask may be painted in any.
    """
    if not path.is_file():
        raise UsageError(f"there is no mask {path}; name a picture that is white where the sample is to be seen")
    pixels = read_picture(path)
    if pixels.shape[:2] != size:
        raise UsageError(
            f"the mask {path.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels and the painted picture {size[1]} "
            f"x {size[0]}; make a mask as large as the picture it is for"
        )
    inside = torch.from_numpy(pixels.max(axis=2) >= INSIDE)
    if not inside.any():
        raise UsageError(f"the mask {path.name} is dark everywhere; paint white where the sample is to be seen")
    return inside[None, None]
