"""Figures of the digit experiments: points coloured by class as a standalone SVG, and grids of small images."""

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from lowlight.report.plots import axis_around

# Ten colours that stay apart on white, also for most colour-blind readers; classes are named in the legend as well.
CLASS_COLOURS = (
    "#1f77b4",
    "#e66100",
    "#2a9d5c",
    "#c81d4e",
    "#7b4fb5",
    "#8c6239",
    "#e377c2",
    "#555555",
    "#b5a800",
    "#17becf",
)
MAX_DOTS = 5000
_SIDE, _MARGIN, _KEY = 560, 56, 60  # drawing units: the square, around it, and the legend's column


def class_scatter(title: str, points: npt.NDArray[np.float64], classes: Sequence[int], axes: tuple[str, str]) -> str:
    """Draw points `[N, 2]` coloured by class (0 to 9) as a standalone SVG of at most 5000 dots."""
    stride = -(-len(points) // MAX_DOTS)
    x_axis, y_axis = (axis_around(name, points[:, i].tolist()) for i, name in enumerate(axes))
    width, height = _MARGIN + _SIDE + _KEY, _SIDE + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="14" role="img"><title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>'
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#999"/>'
        f'<text x="{_MARGIN}" y="{_MARGIN - 18}" font-size="17">{escape(title)}</text>'
    ]
    for value in x_axis.ticks():
        x = _MARGIN + x_axis.share(value) * _SIDE
        parts.append(f'<text x="{x:.1f}" y="{_MARGIN + _SIDE + 18}" text-anchor="middle">{value:g}</text>')
    for value in y_axis.ticks():
        y = _MARGIN + (1 - y_axis.share(value)) * _SIDE
        parts.append(f'<text x="{_MARGIN - 6}" y="{y + 5:.1f}" text-anchor="end">{value:g}</text>')
    middle = _MARGIN + _SIDE / 2
    parts.append(
        f'<text x="{middle}" y="{height - 14}" text-anchor="middle">{escape(axes[0])}</text>'
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(axes[1])}</text>'
    )
    for (across, up), kind in zip(points[::stride].tolist(), classes[::stride], strict=True):
        x, y = _MARGIN + x_axis.share(across) * _SIDE, _MARGIN + (1 - y_axis.share(up)) * _SIDE
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{CLASS_COLOURS[kind]}" fill-opacity=".7"/>')
    for kind in sorted(set(classes)):
        y = _MARGIN + 14 + 22 * kind
        parts.append(
            f'<circle cx="{_MARGIN + _SIDE + 16}" cy="{y}" r="6" fill="{CLASS_COLOURS[kind]}"/>'
            f'<text x="{_MARGIN + _SIDE + 28}" y="{y + 5}">{kind}</text>'
        )
    return "".join(parts) + "</svg>\n"


def image_grid(images: npt.NDArray[np.float32], *, gap_px: int = 0, zoom: int = 1) -> npt.NDArray[np.uint16]:
    """Lay images `[rows, columns, h, w]`, values in [0, 1] and clipped to it, into one gray picture `[H, W, 1]`.

    65535 is white; gaps are mid gray; every pixel becomes `zoom` x `zoom`.
    """
    pixels = np.round(np.clip(images, 0, 1) * 65535).astype(np.uint16)
    pixels = pixels.repeat(zoom, axis=2).repeat(zoom, axis=3)
    pixels = np.pad(pixels, ((0, 0), (0, 0), (0, gap_px), (0, gap_px)), constant_values=32768)
    rows, columns, height, width = pixels.shape
    sheet = pixels.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    return np.ascontiguousarray(sheet[: rows * height - gap_px, : columns * width - gap_px, None])
