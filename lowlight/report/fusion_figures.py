"""A sheet of hypotheses: what a network saw, the truth, and what it made of it, for several numbers of frames."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

GAP_PX = 2  # between pictures
GROUP_GAP_PX = 8  # between numbers of frames, and around the truths
_GAP = 1.0  # white
_UNSEEN = 0.5  # where a network got no frame

Images = npt.NDArray[np.float32]


def fusion_sheet(
    target: Images, frames: Images, samples: Mapping[int, Images], *, zoom: int = 1
) -> npt.NDArray[np.uint16]:
    """Lay pictures, values in [0, 1] and clipped to it, into one picture `[H, W, C]`; 65535 is white.

    `target [N, C, h, w]`, `frames [N, K, C, h, w]`, and for each number of frames that a network got, its hypotheses
    `[N, S, C, h, w]`. A row is an item: its frames, gray where the network did not get them, then the truth, then the
    hypotheses. Rows stand in groups, one for each number of frames, in the order given. Every pixel becomes
    `zoom` x `zoom`.
    """
    groups = []
    for number, found in samples.items():
        shown = np.where(np.arange(frames.shape[1])[:, None, None, None] < number, frames, np.float32(_UNSEEN))
        parts = [_tiled(part, zoom) for part in (shown, target[:, None], found) if part.shape[1]]
        groups.append(_joined(parts, axis=1))
    sheet = _joined(groups, axis=0)
    return np.round(np.clip(sheet, 0, 1) * 65535).astype(np.uint16)


def _tiled(images: Images, zoom: int) -> Images:
    """Lay `[rows, columns, C, h, w]` into `[H, W, C]`, with gaps between them."""
    images = images.repeat(zoom, axis=3).repeat(zoom, axis=4)
    gap = ((0, 0), (0, 0), (0, 0), (0, GAP_PX), (0, GAP_PX))
    padded = np.pad(images, gap, constant_values=_GAP)
    rows, columns, channels, height, width = padded.shape
    sheet = padded.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return sheet[:-GAP_PX, :-GAP_PX]


def _joined(parts: list[Images], axis: int) -> Images:
    """Put sheets beside or below one another, with wider gaps."""
    shape = list(parts[0].shape)
    shape[axis] = GROUP_GAP_PX
    gap = np.full(shape, _GAP, np.float32)
    between = [piece for part in parts for piece in (gap, part)][1:]
    return np.concatenate(between, axis=axis)
