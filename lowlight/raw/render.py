"""LibRaw's own rendering of a RAW file: what the ground truths of the See-in-the-Dark pairs are."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy
from threadpoolctl import threadpool_limits

from lowlight.core.errors import BrokenFileError, LowlightError, UnsupportedRawError
from lowlight.raw.exif import read_metadata
from lowlight.raw.refusals import check_file, not_raw


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
    with _sentences(path, check_file(path)), rawpy.imread(str(path)) as raw:
        return int(raw.sizes.height), int(raw.sizes.width)


def _render(path: Path, *, half_size: bool) -> tuple[npt.NDArray[np.uint16], float | None]:
    container = check_file(path)
    # One OpenMP thread: compressed Fuji files decode differently from run to run with more.
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
        rendered = raw.postprocess(
            use_camera_wb=True, half_size=half_size, no_auto_bright=True, output_bps=16, user_flip=0
        )
        seconds = float(raw.other.shutter_speed)
    pixels = np.asarray(rendered, dtype=np.uint16)
    if not (math.isfinite(seconds) and seconds > 0):
        return pixels, read_metadata(path).exposure_s
    return pixels, float(f"{seconds:.6g}")  # without the digits that single precision added


@contextmanager
def _sentences(path: Path, container: str | None) -> Iterator[None]:
    """Turn what LibRaw raises into this project's errors."""
    name = path.name
    try:
        yield
    except LowlightError:
        raise
    except rawpy.LibRawFileUnsupportedError:
        raise not_raw(path, container) from None
    except rawpy.LibRawIOError:
        if container is None:
            raise not_raw(path, container) from None
        raise BrokenFileError(
            f"{name} is truncated or damaged: its {container} header is there, the pixel data are not; "
            "copy it from the camera again."
        ) from None
    except (MemoryError, rawpy.LibRawUnsufficientMemoryError):
        raise LowlightError(f"There is not enough memory to render {name}.") from None
    except (rawpy.LibRawError, RuntimeError, NotImplementedError, ValueError) as problem:
        why = problem.args[0] if problem.args else problem
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise BrokenFileError(
            f"{name} cannot be rendered ({why.strip().rstrip('.') or type(problem).__name__}); "
            "it is damaged or of a kind that LibRaw does not read."
        ) from None
