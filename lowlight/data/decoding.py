"""Decoding the two files of a pair onto one grid: the dark frame packed in fixed point, the truth beside it."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lowlight.core.errors import DataError
from lowlight.core.photo import RGGB, RawFrame
from lowlight.data.pairs import fit_truth, read_truth
from lowlight.data.pictures import READERS
from lowlight.ops.resize import mean_of_blocks
from lowlight.raw.bayer import in_blocks, origin_padding, pack, packed_size, plane_offsets
from lowlight.raw.levels import Levels

SCALE = 65535  # of the fixed point: the value of white

Pixels = npt.NDArray[np.uint16]
TruthSize = Literal["half", "full"]


def quantise(planes: npt.NDArray[np.float32]) -> Pixels:
    """Planes `[4, h, w]`, 0 = black and 1 = white, to fixed point `[h, w, 4]`; clipped to [0, 1]."""
    scaled = np.clip(planes, 0, 1) * np.float32(SCALE)
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint16).transpose(1, 2, 0))


def dequantise(stored: Pixels) -> npt.NDArray[np.float32]:
    """Fixed point `[h, w, C]` to float32 planes `[C, h, w]` in [0, 1]."""
    return np.ascontiguousarray((stored.astype(np.float32) / np.float32(SCALE)).transpose(2, 0, 1))


def unpack(stored: Pixels) -> Pixels:
    """Fixed-point planes `[h, w, 4]` to their RGGB mosaic `[2h, 2w]`."""
    height, width = stored.shape[:2]
    mosaic = np.empty((2 * height, 2 * width), stored.dtype)
    for colour, (row, col) in enumerate(plane_offsets(RGGB)):
        mosaic[row::2, col::2] = stored[..., colour]
    return mosaic


def decode_frame(path: Path, size: TruthSize, levels: Levels | None = None) -> tuple[Pixels, RawFrame]:
    """Read a dark RAW and pack it in fixed point, to lie on truths of a size; `levels` are black and white in DN."""
    from lowlight.raw.read import read_at_levels

    frame = read_at_levels(path, levels)
    if size == "half":
        frame = in_blocks(frame)
    return quantise(pack(frame).numpy()), frame


def decode_truth(path: Path, frame: RawFrame, size: TruthSize) -> tuple[Pixels, float | None]:
    """Read a bright file to lie on the packed grid of its dark frame, with its exposure time where it is known.

    At half size it is cut to the packed size; at full size it is mirrored to twice the packed size, as the mosaic
    is. Raises `DataError` where the file does not have the size that is asked for.
    """
    if size == "full" and path.suffix.lower() not in READERS:
        from lowlight.raw.render import render_full_size

        truth, bright_s = render_full_size(path)
    else:
        truth, bright_s = read_truth(path)
    truth = fit_truth(truth, frame, path)
    height, width = packed_size(frame.size, frame.pattern)
    is_full = truth.shape[:2] == frame.size
    if size == "half":
        return np.ascontiguousarray((mean_of_blocks(truth) if is_full else truth)[:height, :width]), bright_s
    if not is_full:
        raise DataError(f"{path.name} has half the sensor's size only; a cache of full-size truths cannot hold it")
    top, left = origin_padding(frame.pattern)
    below, right = 2 * height - top - truth.shape[0], 2 * width - left - truth.shape[1]
    return np.pad(truth, ((top, below), (left, right), (0, 0)), mode="reflect"), bright_s
