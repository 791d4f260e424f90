"""LibRaw's own rendering of a RAW file: what the ground truths of the See-in-the-Dark pairs are."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy

from lowlight.raw.exif import tiff_tags
from lowlight.raw.exposure_data import complete_metadata
from lowlight.raw.libraw import open_libraw
from lowlight.raw.read import check_mosaic
from lowlight.raw.refusals import check_file


def libraw_version() -> str:
    """Name the version of LibRaw that decodes, such as "0.22.2"."""
    return ".".join(str(part) for part in rawpy.libraw_version)


def render_half_size(path: Path) -> tuple[npt.NDArray[np.uint16], float | None]:
    """Render a Bayer RAW as a ground truth, with its exposure time in seconds (None where unknown).

    The picture is uint16 `[h, w, 3]`, 65535 = white, in sRGB primaries and LibRaw's default curve, one pixel
    for each 2x2 block, with the camera's white balance, without automatic brightening, never turned. Odd sizes
    are rounded up. Source: thesis, section on data. Raises `BrokenFileError` and `UnsupportedRawError` with the
    sentences `read_raw` has for the same files.
    """
    return _render(Path(path), half_size=True)


def render_full_size(path: Path) -> tuple[npt.NDArray[np.uint16], float | None]:
    """Render a Bayer RAW as `render_half_size` does, but at the size of the visible mosaic, demosaicked by LibRaw."""
    return _render(Path(path), half_size=False)


def visible_size(path: Path) -> tuple[int, int]:
    """Give height and width of a RAW file's visible mosaic in sensor pixels; the pixels are not decoded."""
    path = Path(path)
    with open_libraw(path, check_file(path)) as raw:
        return int(raw.sizes.height), int(raw.sizes.width)


def _render(path: Path, *, half_size: bool) -> tuple[npt.NDArray[np.uint16], float | None]:
    container = check_file(path)
    with open_libraw(path, container) as raw:
        check_mosaic(raw, path, container, tiff_tags(path) if container == "TIFF" else {})
        rendered = raw.postprocess(
            use_camera_wb=True, half_size=half_size, no_auto_bright=True, output_bps=16, user_flip=0
        )
        return np.asarray(rendered, dtype=np.uint16), complete_metadata(raw, path).exposure_s
