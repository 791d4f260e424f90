"""Digits drawn from strokes, for machines without any set of real ones."""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor

CLASSES = 10
SEGMENTS = 24  # that every digit is made of; short digits repeat their last one
_BLOCK = 100  # digits rendered together, so that memory stays small
_SLANT, _TURN = 0.3, 0.2  # largest shear, and largest angle in radians
_GROWTH, _SHIFT = (0.8, 1.1), 0.07  # of the unit square a digit is drawn in
_WOBBLE = 0.035  # amplitude of a digit's slow bends
_WIDTH_PX = (0.9, 1.9)  # half the pen's width

Point = tuple[float, float]


def _arc(x: float, y: float, across: float, down: float, start_deg: float, end_deg: float) -> list[Point]:
    """Points of a part of an ellipse; 0 degrees is right, 90 is down."""
    steps = max(3, round(abs(end_deg - start_deg) / 30))
    angles = (math.radians(start_deg + (end_deg - start_deg) * i / steps) for i in range(steps + 1))
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


# The strokes of every digit as (right, down) in the unit square.
_STROKES: dict[int, list[list[Point]]] = {
    0: [_arc(0.5, 0.5, 0.25, 0.38, 0, 360)],
    1: [[(0.36, 0.25), (0.52, 0.12), (0.52, 0.88)]],
    2: [[*_arc(0.5, 0.32, 0.23, 0.2, 190, 395), (0.26, 0.87), (0.76, 0.87)]],
    3: [[*_arc(0.48, 0.31, 0.22, 0.19, 200, 440), *_arc(0.48, 0.69, 0.25, 0.2, -80, 155)]],
    4: [[(0.58, 0.12), (0.24, 0.6), (0.78, 0.6)], [(0.62, 0.4), (0.6, 0.9)]],
    5: [[(0.72, 0.13), (0.36, 0.13), (0.32, 0.46), *_arc(0.48, 0.65, 0.25, 0.22, -110, 150)]],
    6: [[(0.64, 0.12), (0.4, 0.35), *_arc(0.5, 0.66, 0.22, 0.22, -160, 200)]],
    7: [[(0.26, 0.14), (0.74, 0.14), (0.44, 0.88)]],
    8: [_arc(0.5, 0.3, 0.19, 0.18, 90, 450), _arc(0.5, 0.68, 0.23, 0.2, -90, 270)],
    9: [[*_arc(0.5, 0.34, 0.21, 0.21, 0, -360), (0.7, 0.5), (0.62, 0.88)]],
}


def draw_digits(count: int, side_px: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw digits `[count, 1, side, side]`, float32 in [0, 1] with 1 = ink, and their classes `[count]`, int64.

    Each is slanted, turned, scaled, bent and drawn with a pen of its own width.
    """
    labels = torch.randint(CLASSES, (count,), generator=generator)
    table = _segment_table()
    blocks = [_draw_block(table[kinds], side_px, generator) for kinds in torch.split(labels, _BLOCK)]
    return torch.cat(blocks) if blocks else torch.empty(0, 1, side_px, side_px), labels


def _segment_table() -> Tensor:
    """The segments of every digit, `[10, segments, ends, xy]`, in the unit square."""
    rows = []
    for strokes in _STROKES.values():
        segments = [pair for stroke in strokes for pair in pairwise(stroke)]
        rows.append(segments + [segments[-1]] * (SEGMENTS - len(segments)))
    return torch.tensor(rows)


def _draw_block(segments: Tensor, side_px: int, generator: Generator) -> Tensor:
    number = len(segments)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(number, *shape).uniform_(low, high, generator=generator)

    points = segments - 0.5
    waves = uniform(-6, 6, 1, 1, 2, 2)
    bend = torch.sin((points[..., None] * waves).sum(-2) + uniform(0, 2 * math.pi, 1, 1, 2))
    points = points + _WOBBLE * bend
    slant, turn = uniform(-_SLANT, _SLANT), uniform(-_TURN, _TURN)
    grow = uniform(*_GROWTH, 2)
    cos, sin = turn.cos(), turn.sin()
    matrix = torch.stack((cos, cos * slant - sin, sin, sin * slant + cos), -1).view(-1, 2, 2) * grow[:, None, :]
    points = torch.einsum("nxy,nsey->nsex", matrix, points) + uniform(-_SHIFT, _SHIFT, 1, 1, 2)
    points = (points + 0.5) * side_px - 0.5

    place = torch.arange(side_px, dtype=torch.float32)
    grid = torch.stack((place.expand(side_px, -1), place[:, None].expand(-1, side_px)), -1).view(-1, 2)
    start, along = points[:, :, 0], points[:, :, 1] - points[:, :, 0]
    # The nearest point of a segment: the pixel's projection onto it, kept between its ends.
    across, down = (grid[:, axis] - start[..., axis, None] for axis in (0, 1))  # [number, segments, pixels]
    dx, dy = along[..., 0, None], along[..., 1, None]
    share = ((across * dx + down * dy) / (dx.square() + dy.square())).clamp_(0, 1)
    squared = (across - share * dx).square_() + (down - share * dy).square_()
    distance = squared.amin(1).sqrt_()
    ink = (uniform(*_WIDTH_PX, 1) + 0.5 - distance).clamp_(0, 1)
    return ink.view(number, 1, side_px, side_px)
