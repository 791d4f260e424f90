"""Packing a Bayer mosaic into four planes, for every CFA phase and any size.

The packed origin is always a red pixel. Where the mosaic starts with another colour, one row or column is mirrored in
front of it (mirroring about a pixel keeps the colours in step), and the finished picture is cropped back. Pictures of
one pixel for each 2x2 block would so be half a block out of place: for them a frame is brought to RGGB block by block.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lowlight.core.photo import RGGB, CfaPattern, RawFrame


def origin_padding(pattern: CfaPattern) -> tuple[int, int]:
    """Rows above and columns left that must be mirrored so that the origin is red: each 0 or 1."""
    for row in (0, 1):
        for col in (0, 1):
            if pattern[row][col] == 0:
                return row, col
    raise ValueError(f"no red in the pattern {pattern}")


def packed_size(size: tuple[int, int], pattern: CfaPattern) -> tuple[int, int]:
    """Height and width of the packed planes of a mosaic of `size`, padding included."""
    top, left = origin_padding(pattern)
    return (size[0] + top + 1) // 2, (size[1] + left + 1) // 2


def plane_offsets(pattern: CfaPattern) -> tuple[tuple[int, int], ...]:
    """Row and column of each colour index inside the red-origin 2x2 block."""
    top, left = origin_padding(pattern)
    where = {pattern[(row + top) % 2][(col + left) % 2]: (row, col) for row in (0, 1) for col in (0, 1)}
    return tuple(where[colour] for colour in range(4))


def in_blocks(frame: RawFrame) -> RawFrame:
    """The frame with red at its origin: in each 2x2 block from the upper left corner the colours change places.

    So a packed pixel is one block of the mosaic, as one of a half-size picture is (LibRaw's too). A block that an odd
    size cuts through is mirrored before.
    """
    if origin_padding(frame.pattern) == (0, 0):
        return frame
    height, width = frame.size
    mosaic = frame.mosaic
    if height % 2 or width % 2:
        mosaic = _mirrored(mosaic, (0, height % 2), (0, width % 2))
    changed = np.empty_like(mosaic)
    for (row, col), (old_row, old_col) in zip(_places(RGGB), _places(frame.pattern), strict=True):
        changed[row::2, col::2] = mosaic[old_row::2, old_col::2]
    return replace(frame, mosaic=np.ascontiguousarray(changed[:height, :width]), pattern=RGGB)


def _places(pattern: CfaPattern) -> tuple[tuple[int, int], ...]:
    """Row and column of each colour index in the pattern itself."""
    where = {pattern[row][col]: (row, col) for row in (0, 1) for col in (0, 1)}
    return tuple(where[colour] for colour in range(4))


def pack_mosaic(mosaic: Tensor, offsets: tuple[tuple[int, int], ...]) -> Tensor:
    """Split a red-origin mosaic `[..., 2h, 2w]` into planes `[..., 4, h, w]` in colour-index order."""
    return torch.stack([mosaic[..., row::2, col::2] for row, col in offsets], dim=-3)


def normalise(planes: Tensor, black: Tensor, white: Tensor, *, clip: bool = True) -> Tensor:
    """DN to the range where 0 is black and 1 is white; `planes [..., 4, h, w]`, levels `[..., 4]`.

    With `clip`, values below black become 0 (thesis: `max(v - b, 0) / (w - b)`); without, noise keeps its sign.
    Values above white are left as they are.
    """
    black = black[..., None, None].to(planes)
    scaled = (planes - black) / (white[..., None, None].to(planes) - black)
    return scaled.clamp_(min=0) if clip else scaled


def pack(frame: RawFrame, start: int = 0, stop: int | None = None, *, clip: bool = True) -> Tensor:
    """Packed rows `start` to `stop` of a frame, float32 `[4, stop - start, w]`, 0 = black, 1 = white.

    Only the asked rows are converted, so that a long frame can be read band by band.
    """
    height, width = packed_size(frame.size, frame.pattern)
    stop = height if stop is None else stop
    band = _band(frame.mosaic, frame.pattern, start, stop, width)
    planes = np.empty((4, stop - start, width), dtype=np.float32)
    for colour, (row, col) in enumerate(plane_offsets(frame.pattern)):
        black, white = np.float32(frame.black[colour]), np.float32(frame.white[colour])
        np.subtract(band[row::2, col::2], black, out=planes[colour])
        planes[colour] *= np.float32(1) / (white - black)
    packed = torch.from_numpy(planes)
    return packed.clamp_(min=0) if clip else packed


def _band(
    mosaic: npt.NDArray[np.uint16], pattern: CfaPattern, start: int, stop: int, width: int
) -> npt.NDArray[np.uint16]:
    """Rows of the red-origin mosaic that packed rows `start` to `stop` need, mirrored where it runs over an edge."""
    top, left = origin_padding(pattern)
    first, last = 2 * start - top, 2 * stop - top
    right = 2 * width - left - mosaic.shape[1]
    above, below = max(-first, 0), max(last - mosaic.shape[0], 0)
    # A mirrored row is the one two further in, so the slice must hold it before it is padded.
    low = min(max(first, 0), mosaic.shape[0] - 1 - below)
    high = max(min(last, mosaic.shape[0]), above + 1)
    inner = mosaic[low:high]
    if not (above or below or left or right):
        return inner
    padded = _mirrored(inner, (above, below), (left, right))
    skip = max(first, 0) - low
    return padded[skip : skip + last - first]


def _mirrored(inner: npt.NDArray[np.uint16], rows: tuple[int, int], cols: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """At most one row or column more on each side, mirrored about the outermost."""
    if min(inner.shape) < 2:
        return np.pad(inner, (rows, cols), mode="reflect")
    height, width = inner.shape
    whole = np.empty((height + sum(rows), width + sum(cols)), dtype=inner.dtype)
    whole[rows[0] : rows[0] + height, cols[0] : cols[0] + width] = inner
    for lines, (before, after) in ((whole.T, cols), (whole, rows)):  # corners last
        if before:
            lines[0] = lines[2]
        if after:
            lines[-1] = lines[-3]
    return whole
