"""Cutting one object out of its picture by its outline: J. Canny's edges (IEEE PAMI 1986), closed and filled."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError

WORKING_PX = 200  # edges are looked for at this size: finer ones are the object's texture
CANNY_SIGMA = 1.5
CLOSING_PX = 3  # half the width of gaps in the outline that are closed
SMALLEST_SHARE = 0.01  # of the picture; a smaller object is none


def read_gray(path: Path, side_px: int) -> npt.NDArray[np.uint8]:
    """A picture in gray, its middle square reduced by area to `[side, side]`, uint8."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("L").crop((left, top, left + side, top + side))
            filter_ = Image.Resampling.BOX if side >= side_px else Image.Resampling.BILINEAR
            return np.asarray(square.resize((side_px, side_px), filter_))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); fetch it again") from error


def cut_object(path: Path, side_px: int) -> npt.NDArray[np.uint8] | None:
    """Gray and mask (255 = object) of the object in a picture, `[2, side, side]`; None where no outline is found."""
    mask = object_mask(read_gray(path, WORKING_PX))
    if mask is None:
        return None
    from PIL import Image

    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((side_px, side_px), Image.Resampling.BOX)
    return np.stack((read_gray(path, side_px), np.asarray(small)))


def object_mask(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
    """Fill the outline of the largest object in a gray picture `[h, w]`; None where there is none."""
    from skimage.feature import canny
    from skimage.measure import label
    from skimage.morphology import dilation, disk, erosion, flood_fill

    edges = canny(gray.astype(np.float32) / 255, sigma=CANNY_SIGMA)  # type: ignore[no-untyped-call]
    # A margin on all sides, so that the ground is one region and nothing is lost at the border.
    margin = CLOSING_PX + 1
    pen = disk(CLOSING_PX)  # type: ignore[no-untyped-call]
    thick = dilation(np.pad(edges, margin).astype(np.uint8), pen)
    filled = flood_fill(thick, (0, 0), 2, connectivity=1) != 2  # type: ignore[no-untyped-call]
    solid = erosion(filled.astype(np.uint8), pen)[margin:-margin, margin:-margin]
    regions = np.asarray(label(solid, connectivity=1))  # type: ignore[no-untyped-call]
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    if sizes.max() < SMALLEST_SHARE * gray.size:
        return None
    return np.asarray(regions == sizes.argmax())
