"""LibRaw's rendering at the sensor's full size: the ground truths of the full-size evaluation protocols."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy
from threadpoolctl import threadpool_limits

from lowlight.core.errors import UnsupportedRawError
from lowlight.raw.refusals import check_file
from lowlight.raw.render import _sentences


def render_full_size(path: Path) -> npt.NDArray[np.uint16]:
    """Render a Bayer RAW as a ground truth of the visible mosaic's size, uint16 `[H, W, 3]`, 65535 = white.

    As `render_half_size` does it, but demosaiced with LibRaw's default method: sRGB primaries, LibRaw's default
    curve, the camera's white balance, no automatic brightening, never turned. Raises the same errors.
    """
    path = Path(path)
    container = check_file(path)
    with (
        _sentences(path, container),
        threadpool_limits(limits=1, user_api="openmp"),
        rawpy.imread(str(path)) as raw,
    ):
        pattern = raw.raw_pattern
        if raw.raw_type != rawpy.RawType.Flat or pattern is None or pattern.shape != (2, 2):
            raise UnsupportedRawError(
                f"{path.name} is no Bayer RAW; a bright frame is one, or a picture rendered from it."
            )
        rendered = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16, user_flip=0)
    return np.asarray(rendered, dtype=np.uint16)
