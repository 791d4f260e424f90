"""What one comparison gives: the measures of a picture and its truth, or the reason why there are none."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from lowlight import __version__
from lowlight.core.errors import LowlightError
from lowlight.metrics.color_error import block_colour_error
from lowlight.raw.render import libraw_version
from lowlight.workflows.evaluating.validation import as_planes, gray_like, match_sizes, measure
from lowlight.writers.depth import to_uint8

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint16]
Row = dict[str, Any]

COLOUR_ERROR = "colour_error"


def score(picture: Pixels, truth: Pixels, bits: int = 16) -> Row:
    """Every metric of two uint16 pictures `[H, W, C]`, brought to one size, and the colour error of colour ones.

    With `bits` 8 the picture is rounded to 8 bits first. The truth of a gray picture is its luma. Equal pictures
    have no finite PSNR: it is None, and `note` says why.
    """
    picture, truth = match_sizes(picture, gray_like(picture, truth))
    if bits == 8:
        picture = rounded_to_8_bits(picture)
    values: Row = dict(measure(picture, truth))
    colour = picture.shape[2] == 3
    values[COLOUR_ERROR] = block_colour_error(as_planes(picture), as_planes(truth)) if colour else None
    if values["psnr"] is None:
        values["note"] = "the pictures are identical: their PSNR is infinite and stays out of the mean"
    return values


def rounded_to_8_bits(pixels: Pixels) -> Pixels:
    """Round uint16 values to the nearest that 8 bits can hold (multiples of 257)."""
    return to_uint8(pixels) * np.uint16(257)


@contextmanager
def error_in(row: Row) -> Iterator[None]:
    """Keep what goes wrong with one row in the row, so that the others are still scored."""
    try:
        yield
    except LowlightError as error:
        row["error"] = str(error)
    except Exception as error:  # decoders and devices raise what they like; the log has the trace
        logger.debug("a row failed", exc_info=True)
        row["error"] = f"{type(error).__name__}: {error}"


def surroundings() -> dict[str, Any]:
    """Give what a report says of the programs that made it."""
    versions = {
        "lowlight": __version__,
        "rawpy": version("rawpy"),
        "libraw": libraw_version(),
        "torch": version("torch"),
    }
    return {"colour_error": "CIEDE2000 of 32x32 block means", "versions": versions}
