"""Plots as inline SVG, drawn from numbers; colours come from the page's style sheet, so that they follow its theme.

Every plot is one `<svg>` with a title for screen readers; it has a fixed drawing size and scales with its column.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 14, 46
COLOURS = 6  # classes s0 to s5 of the style sheet
MAX_DOTS = 2500


@dataclass(frozen=True)
class Series:
    """A named row of points `(x, y)`."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


@dataclass(frozen=True)
class Axis:
    """One axis: its title, the range it shows, and whether it is logarithmic."""

    title: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1 inside the range."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """About five round values inside the range."""
        rounded = _log_ticks(self.low, self.high) if self.log else []
        if len(rounded) > 1:
            return rounded
        # Too short a part of a decade for round factors of it.
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def axis_around(title: str, values: Sequence[float], *, log: bool = False, zero: bool = False) -> Axis:
    """Make an axis that shows all values with a little room; `zero` lets it begin at 0."""
    low, high = min(values), max(values)
    if log:
        room = 1.15 if high > low else 2.0
        return Axis(title, low / room, high * room, log=True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(title, 0.0 if zero else low - room, high + room)


def scatter_plot(
    title: str,
    series: Sequence[Series],
    x_title: str,
    y_title: str,
    *,
    log_x: bool = False,
    lines: Sequence[Series] = (),
) -> str:
    """Dots, and fitted lines through them. Without any point a sentence takes the plot's place."""
    points = [point for each in series for point in each.points]
    if not points:
        return _empty(title)
    x_axis = axis_around(x_title, [x for x, _ in points], log=log_x)
    y_axis = axis_around(y_title, [y for _, y in points])
    parts = []
    for each in lines:
        parts.append(f'<path class="line thin s{each.colour % COLOURS}" d="{_path(each.points, x_axis, y_axis)}"/>')
    for each in series:
        stride = -(-len(each.points) // MAX_DOTS)
        for x, y in each.points[:: max(stride, 1)]:
            px, py = _place(x, y, x_axis, y_axis)
            parts.append(f'<circle class="dot s{each.colour % COLOURS}" cx="{px:.1f}" cy="{py:.1f}" r="4"/>')
    return _frame(title, x_axis, y_axis, "".join(parts))


def line_plot(title: str, series: Sequence[Series], x_title: str, y_title: str) -> str:
    """Curves over x."""
    points = [point for each in series for point in each.points]
    if not points:
        return _empty(title)
    x_axis = axis_around(x_title, [x for x, _ in points], zero=True)
    y_axis = axis_around(y_title, [y for _, y in points])
    parts = [f'<path class="line s{s.colour % COLOURS}" d="{_path(s.points, x_axis, y_axis)}"/>' for s in series]
    for each in series:
        if len(each.points) == 1:
            px, py = _place(*each.points[0], x_axis, y_axis)
            parts.append(f'<circle class="dot s{each.colour % COLOURS}" cx="{px:.1f}" cy="{py:.1f}" r="4"/>')
    return _frame(title, x_axis, y_axis, "".join(parts))


def histogram_plot(title: str, counts: Sequence[tuple[str, Sequence[int], int]], x_title: str) -> str:
    """Histograms of 256 levels over one another, as shares of the pixels in percent: (name, counts, colour).

    The first is drawn as an area behind the others. Single levels that tower over all others, such as black, are
    cut off at the top.
    """
    shares = []
    for name, values, colour in counts:
        total = sum(values) or 1
        shares.append((name, [100 * value / total for value in values], colour))
    ranked = sorted(value for _, levels, _ in shares for value in levels)
    top = max(ranked[int(0.985 * (len(ranked) - 1))] * 1.25, 1e-3)
    x_axis, y_axis = Axis(x_title, 0, 255), Axis("% of pixels", 0, top)
    parts = []
    for index, (_, levels, colour) in enumerate(shares):
        points = [(level, min(value, top)) for level, value in enumerate(levels)]
        path = _path(points, x_axis, y_axis)
        if index == 0:
            right, left = _place(255, 0, x_axis, y_axis), _place(0, 0, x_axis, y_axis)
            path += f" L{right[0]:.1f},{right[1]:.1f} L{left[0]:.1f},{left[1]:.1f}Z"
            parts.append(f'<path class="area" d="{path}"/>')
        else:
            parts.append(f'<path class="line s{colour % COLOURS}" d="{path}"/>')
    return _frame(title, x_axis, y_axis, "".join(parts))


def legend(names: Sequence[tuple[str, int]]) -> str:
    """Names beside their colours; colour -1 is the area's."""
    items = "".join(
        f'<li><span class="key {"area-key" if colour < 0 else f"s{colour % COLOURS}"}"></span>{escape(name)}</li>'
        for name, colour in names
    )
    return f'<ul class="legend">{items}</ul>'


def _place(x: float, y: float, x_axis: Axis, y_axis: Axis) -> tuple[float, float]:
    across, up = x_axis.share(x), y_axis.share(y)
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _path(points: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    placed = (_place(x, y, x_axis, y_axis) for x, y in points)
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in placed)


def _frame(title: str, x_axis: Axis, y_axis: Axis, content: str) -> str:
    floor, wall = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in y_axis.ticks():
        _, y = _place(x_axis.low, value, x_axis, y_axis)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{wall}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in x_axis.ticks():
        x, _ = _place(value, y_axis.low, x_axis, y_axis)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 19}" text-anchor="middle">{_number(value)}</text>')
    middle_x, middle_y = (LEFT + wall) / 2, (TOP + floor) / 2
    parts.append(
        f'<text class="axis" x="{middle_x:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_axis.title)}</text>'
        f'<text class="axis" transform="translate(13 {middle_y:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_axis.title)}</text>"
    )
    name = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}"><title>{name}</title>'
        f'{"".join(parts)}{content}<line class="base" x1="{LEFT}" x2="{wall}" y1="{floor}" y2="{floor}"/></svg>'
    )


def _empty(title: str) -> str:
    return f'<p class="nothing">{escape(title)}: nothing to draw.</p>'


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside
    return inside


def _number(value: float) -> str:
    if value and abs(value) >= 10000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"
