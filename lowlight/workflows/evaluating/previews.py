"""Small pictures of every scored pair for the report page: as shot, amplified, each method's, and the truth."""

import io

import numpy as np

from lowlight.data.pairs import Pair
from lowlight.ops.orient import turn_upright
from lowlight.ops.resize import mean_of_blocks
from lowlight.report.page import Layer, Photo
from lowlight.workflows.evaluating.baselines import amplified
from lowlight.workflows.evaluating.scoring import Pixels
from lowlight.writers.depth import to_uint8

QUALITY = 84
SHOWN_METHODS = 4  # more would make the page heavy
# Longest side in pixels for up to so many photos, so that the page stays within tens of MB.
SIDES_PX = ((40, 720), (150, 480), (600, 320), (10**9, 200))


class PreviewBook:
    """Shrinks and keeps the pictures that an evaluation shows it."""

    def __init__(self, count: int) -> None:
        self.side_px = next(side for limit, side in SIDES_PX if count <= limit)
        self.photos: list[Photo] = []

    def __call__(self, index: int, pair: Pair, pictures: dict[str, Pixels]) -> None:
        """Take one pair and what was made of it."""
        full = max(max(made.shape[:2]) for made in pictures.values()) > max(pair.frame.size) * 3 // 4
        truth = pair.truth if full or pair.truth.shape[0] < pair.frame.size[0] * 3 // 4 else mean_of_blocks(pair.truth)
        layers = {
            "as shot": amplified(pair.frame, 1.0, half=not full),
            "amplified": amplified(pair.frame, pair.ratio, half=not full),
            **dict(list(pictures.items())[:SHOWN_METHODS]),
            "truth": truth,
        }
        upright = {name: turn_upright(pixels, pair.frame.orientation) for name, pixels in layers.items()}
        height, width = upright["truth"].shape[:2]
        shrink = min(self.side_px / max(height, width), 1.0)
        size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        shown = tuple(Layer(name, _jpeg(pixels, size)) for name, pixels in upright.items())
        self.photos.append(Photo(index, *size, shown))


def _jpeg(pixels: Pixels, size: tuple[int, int]) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(to_uint8(pixels), (*pixels.shape[:2], 3))))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
