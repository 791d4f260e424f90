"""The loss curves of one run as a file of its own: a panel for each number of the log, in one SVG."""

from collections.abc import Sequence
from html import escape
from typing import Any

from lowlight.report.figures import HIDDEN_CURVES, flat_numbers
from lowlight.report.plots import HEIGHT, WIDTH, Series, line_plot

COLUMNS = 2
MARGIN, TITLE = 24, 34
MAX_POINTS = 400  # of a curve; longer ones are averaged down
STYLE = (
    "svg{background:#fff}text{fill:#656b76;font:12px system-ui,sans-serif}.name{fill:#23272e;font-size:15px}"
    ".grid{stroke:#e4e1d9}.base{stroke:#656b76}.line{fill:none;stroke:#2f6f73;stroke-width:1.8;stroke-linejoin:round}"
    ".dot{fill:#2f6f73}"
)


def curves_svg(rows: Sequence[dict[str, Any]]) -> str | None:
    """Draw every number of a training log over its `step`; None where nothing can be drawn yet.

    Rows have a `step` and numbers, nested ones under a name, as the log's JSON lines do.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in flat_numbers(row).items():
            if key.rpartition(" ")[2] not in HIDDEN_CURVES and "step" in row:
                curves.setdefault(key, []).append((row["step"], value))
    if not curves:
        return None
    count = len(curves)
    columns = min(COLUMNS, count)
    across, down = WIDTH + MARGIN, HEIGHT + TITLE + MARGIN
    width, height = MARGIN + columns * across, MARGIN + -(-count // columns) * down
    parts = []
    for index, (key, points) in enumerate(curves.items()):
        x, y = MARGIN + index % columns * across, MARGIN + index // columns * down
        plot = line_plot(f"{key} over steps", [Series(key, thinned(points))], "step", key)
        placed = plot.replace("<svg ", f'<svg x="{x}" y="{y + TITLE}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        parts.append(f'<text class="name" x="{x}" y="{y + TITLE - 14}">{escape(key)}</text>{placed}')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbouring points until there are few enough to draw."""
    size = -(-len(points) // MAX_POINTS)
    groups = [points[first : first + size] for first in range(0, len(points), max(size, 1))]
    return [tuple(sum(values) / len(group) for values in zip(*group, strict=True)) for group in groups]
