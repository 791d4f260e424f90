"""What happens to one photo around the network: its balance, its ratio, its window, its finished picture."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from lowlight.burst import Burst
from lowlight.core.errors import OutputError, UsageError
from lowlight.core.photo import LinearImage, PerColour, Picture, RawFrame
from lowlight.ops.exposure import metered_means, metering_block, ratio_for
from lowlight.ops.orient import turn_upright, upright_size, window_on_sensor
from lowlight.raw.balance import grey_world
from lowlight.restorer import Restored
from lowlight.views import Window

BLOCKS_IN_BAND = 16  # rows of blocks that are metered at a time
BLACK_LIMIT = 65535 // 255  # a picture whose brightest value is below one 8-bit step is black


def meter(frame: RawFrame) -> float:
    """The automatic ratio of a whole frame."""
    return meter_scene(Burst.single(frame))


def meter_scene(burst: Burst) -> float:
    """The automatic ratio of the reference's light, taken from all frames; read in bands, to save memory."""
    height, width = burst.size
    block = metering_block(height, width)
    rows = BLOCKS_IN_BAND * block
    bands = (burst.average(top, min(top + rows, height), clip=False) for top in range(0, height, rows))
    return ratio_for(torch.cat([metered_means(band, block) for band in bands]))


def balanced(frame: RawFrame, wb: str | tuple[float, float, float]) -> RawFrame:
    """The frame with the white balance the user asked for; `UsageError` where it cannot be found."""
    gains: PerColour | None
    if wb == "camera":
        return frame
    if wb == "auto":
        gains, source = grey_world(frame.mosaic, frame.pattern, frame.black, frame.white), "grey world"
    elif wb == "daylight":
        gains, source = frame.daylight_wb, "daylight"
    else:
        assert not isinstance(wb, str)
        r, g, b = wb
        gains, source = (r / g, 1.0, b / g, 1.0), "user"
    if gains is None:
        raise UsageError(
            f"no {source} white balance can be found for {frame.path.name if frame.path else 'this photo'}; "
            "use --wb camera, or give three gains"
        )
    return replace(frame, wb=gains, wb_source=source)


def crop_window(frame: RawFrame, crop: tuple[int, int, int, int]) -> Window:
    """Where a crop of the upright full-size picture lies on the sensor; `UsageError` where it lies beside it."""
    x, y, width, height = crop
    rows, cols = upright_size(frame.size, frame.orientation)
    if x + width > cols or y + height > rows:
        raise UsageError(
            f"the crop {','.join(map(str, crop))} does not lie inside the picture of {cols}x{rows}; "
            "give X,Y,W,H in its pixels"
        )
    return window_on_sensor(crop, frame.size, frame.orientation)


def finished(frame: RawFrame, restored: Restored, recorded: tuple[str, ...]) -> Picture:
    """The picture as a writer takes it: turned upright, with what the photo says about itself."""
    linear = restored.linear
    if linear is not None:
        linear = LinearImage(turn_upright(linear.pixels, frame.orientation), linear.to_srgb, linear.wb)
    return Picture(turn_upright(restored.pixels, frame.orientation), frame.metadata, recorded, linear)


def refuse_black(pixels: npt.NDArray[np.uint16], name: str) -> None:
    """Raise `OutputError` for a picture that shows nothing."""
    if int(pixels.max()) < BLACK_LIMIT:
        raise OutputError(
            f"the result for {name} is black, so nothing was written; "
            "try a higher --ratio or --ev, or check that the photo holds any light"
        )
