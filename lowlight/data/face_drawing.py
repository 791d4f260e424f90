"""Draws one face from a seed: filled shapes with soft borders on a canvas twice the size, then block means."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
_OVER = 2  # pixels of the canvas for one of the picture
_SKINS = np.array([[0.96, 0.80, 0.69], [0.87, 0.67, 0.53], [0.72, 0.50, 0.36], [0.47, 0.31, 0.22]], np.float32)
_HAIRS = np.array([[0.10, 0.08, 0.07], [0.30, 0.19, 0.11], [0.62, 0.45, 0.24], [0.55, 0.24, 0.12], [0.65, 0.64, 0.62]])
_IRISES = np.array([[0.24, 0.15, 0.09], [0.27, 0.43, 0.55], [0.33, 0.42, 0.25]])


class Canvas:
    """A square picture; coordinates run from -1 to 1, x to the right and y down."""

    def __init__(self, side_px: int) -> None:
        axis = ((np.arange(side_px) + 0.5) * 2 / side_px - 1).astype(np.float32)
        self.x, self.y = axis[None, :], axis[:, None]
        self.pixels: Array = np.zeros((side_px, side_px, 3), np.float32)
        self.soft = 2.0 / side_px  # width of a pixel

    def ellipse(self, x: float, y: float, rx: float, ry: float, tilt: float = 0.0, power: float = 2.0) -> Array:
        """Cover in [0, 1] of an ellipse; a larger `power` makes it squarer."""
        u = (self.x - x) * np.cos(tilt) + (self.y - y) * np.sin(tilt)
        v = (self.y - y) * np.cos(tilt) - (self.x - x) * np.sin(tilt)
        radius = (np.abs(u / rx) ** power + np.abs(v / ry) ** power) ** (1 / power)
        return _cover((1 - radius) * min(rx, ry) / self.soft)

    def stroke(self, x0: float, y0: float, x1: float, y1: float, width: float, bend: float = 0.0) -> Array:
        """Cover of a line from one point to another, bent like a parabola by `bend` in y at its middle."""
        along = np.clip((self.x - x0) / (x1 - x0), 0, 1)
        line = y0 + (y1 - y0) * along + 4 * bend * along * (1 - along)
        outside = np.maximum(np.maximum(min(x0, x1) - self.x, self.x - max(x0, x1)), 0)
        distance = np.hypot(self.y - line, outside)
        return _cover((width / 2 - distance) / self.soft)

    def paint(self, cover: Array, colour: npt.ArrayLike, opacity: float = 1.0) -> None:
        """Lay a colour `[3]`, or one for each pixel, over what is there."""
        weight = (opacity * cover)[..., None]
        self.pixels += weight * (np.asarray(colour, np.float32) - self.pixels)


def draw_face(seed: int, side_px: int, *, glasses: bool) -> Array:
    """Draw the face of a seed, float32 `[side_px, side_px, 3]` in [0, 1], with or without its glasses.

    With and without, everything but the glasses is the same.
    """
    rng = np.random.default_rng(seed)
    canvas = Canvas(_OVER * side_px)
    place = rng.normal(0, (0.04, 0.03), 2)
    x, y, tilt = float(place[0]), float(place[1]) + 0.05, float(rng.normal(0, 0.04))
    wide, tall = float(rng.uniform(0.46, 0.58)), float(rng.uniform(0.62, 0.74))
    skin = _mixed(rng, _SKINS)
    hair = _mixed(rng, _HAIRS)
    light = rng.uniform(-1, 1)
    _backdrop(rng, canvas)
    _hair_and_shoulders(rng, canvas, x, y, wide, tall, hair, skin)
    _head(rng, canvas, x, y, wide, tall, tilt, skin, light)
    eye_x, eye_y = wide * float(rng.uniform(0.40, 0.47)), y - tall * float(rng.uniform(0.10, 0.18))
    _eyes_and_brows(rng, canvas, x, eye_x, eye_y, skin, hair)
    _nose_and_mouth(rng, canvas, x, y, wide, tall, skin, light)
    _fringe(rng, canvas, x, y, wide, tall, hair)
    _texture(rng, canvas)
    if glasses:
        _glasses(rng, canvas, x, eye_x, eye_y, wide)
    small = canvas.pixels.reshape(side_px, _OVER, side_px, _OVER, 3).mean((1, 3))
    return np.asarray(np.clip(small, 0, 1), np.float32)


def _cover(pixels_inside: npt.NDArray[np.floating[Any]]) -> Array:
    """Cover in [0, 1] from the distance to a border in pixels, positive inside."""
    return np.asarray(np.clip(pixels_inside + 0.5, 0, 1), np.float32)


def _mixed(rng: np.random.Generator, colours: npt.ArrayLike) -> Array:
    """A colour between two random ones of a list, a little off."""
    table = np.asarray(colours, np.float32)
    first, second = table[rng.integers(len(table), size=2)]
    mixed = first + (second - first) * rng.random() + rng.normal(0, 0.02, 3)
    return np.asarray(np.clip(mixed, 0, 1), np.float32)


def _backdrop(rng: np.random.Generator, canvas: Canvas) -> None:
    first, second = rng.uniform(0.1, 0.9, (2, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = 0.5 + 0.35 * (np.cos(angle) * canvas.x + np.sin(angle) * canvas.y)
    canvas.pixels[:] = first + (second - first) * 0.6 * along[..., None]


def _hair_and_shoulders(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, wide: float, tall: float, hair: Array, skin: Array
) -> None:
    if rng.random() < 0.4:  # long hair behind the neck
        canvas.paint(canvas.ellipse(x, y + 0.25, wide * 1.25, tall * 1.1, power=2.5), hair * 0.85)
    canvas.paint(canvas.ellipse(x, y + tall, wide * 0.5, 0.5), skin * 0.8)
    clothes = rng.uniform(0.05, 0.9, 3)
    canvas.paint(canvas.ellipse(x, 1.35, rng.uniform(0.8, 1.1), rng.uniform(0.45, 0.6), power=2.5), clothes)
    grown = rng.uniform(1.02, 1.2)
    canvas.paint(canvas.ellipse(x, y - 0.12, wide * grown, tall * rng.uniform(0.95, 1.05)), hair)


def _head(
    rng: np.random.Generator,
    canvas: Canvas,
    x: float,
    y: float,
    wide: float,
    tall: float,
    tilt: float,
    skin: Array,
    light: float,
) -> None:
    for side in (-1, 1):
        canvas.paint(canvas.ellipse(x + side * wide * 0.98, y - 0.02, 0.07, 0.13), skin * 0.9)
    shade = 1 + 0.18 * light * (canvas.x - x) / wide - 0.10 * (canvas.y - y) / tall
    edge = ((canvas.x - x) / wide) ** 2 + ((canvas.y - y) / tall) ** 2
    shade = shade - 0.12 * np.clip(edge, 0, 1) ** 2
    canvas.paint(canvas.ellipse(x, y, wide, tall, tilt, rng.uniform(2.0, 2.4)), skin * shade[..., None])
    blush = rng.uniform(0, 0.25)
    for side in (-1, 1):
        spot = np.exp(-(((canvas.x - x - side * wide * 0.5) / 0.14) ** 2) - ((canvas.y - y - 0.16) / 0.12) ** 2)
        canvas.paint(spot.astype(np.float32), skin * np.array([1.0, 0.72, 0.68]), blush)


def _eyes_and_brows(
    rng: np.random.Generator, canvas: Canvas, x: float, eye_x: float, eye_y: float, skin: Array, hair: Array
) -> None:
    rx, ry = rng.uniform(0.085, 0.11), rng.uniform(0.04, 0.06)
    iris, gaze = _mixed(rng, _IRISES), rng.uniform(-0.25, 0.25) * rx
    lift, bend, width = rng.uniform(0.12, 0.17), rng.uniform(-0.05, -0.015), rng.uniform(0.03, 0.055)
    brow = np.clip(hair * 0.8, 0.05, 0.5)
    for side in (-1, 1):
        cx = x + side * eye_x
        canvas.paint(canvas.ellipse(cx, eye_y - 0.01, rx * 1.35, ry * 1.7), skin * 0.82, 0.6)
        white = canvas.ellipse(cx, eye_y, rx, ry)
        canvas.paint(white, (0.93, 0.92, 0.90))
        canvas.paint(white * canvas.ellipse(cx + gaze, eye_y, ry * 1.05, ry * 1.05), iris)
        canvas.paint(white * canvas.ellipse(cx + gaze, eye_y, ry * 0.5, ry * 0.5), (0.03, 0.03, 0.03))
        canvas.paint(canvas.ellipse(cx + gaze + 0.015, eye_y - 0.015, 0.014, 0.014), (1.0, 1.0, 1.0))
        canvas.paint(canvas.stroke(cx - rx, eye_y, cx + rx, eye_y, 0.022, -ry * 1.05), skin * 0.3)
        canvas.paint(canvas.stroke(cx - 1.4 * rx, eye_y - lift, cx + 1.4 * rx, eye_y - lift, width, bend), brow)


def _nose_and_mouth(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, wide: float, tall: float, skin: Array, light: float
) -> None:
    nose_y, nose = y + tall * rng.uniform(0.16, 0.24), rng.uniform(0.07, 0.11)
    side = 1.0 if light < 0 else -1.0
    canvas.paint(canvas.ellipse(x + side * nose * 0.5, nose_y - 0.14, nose * 0.4, 0.18), skin * 0.85, 0.6)
    canvas.paint(canvas.ellipse(x, nose_y, nose, 0.055), skin * 0.93, 0.8)
    for nostril in (-1, 1):
        canvas.paint(canvas.ellipse(x + nostril * nose * 0.5, nose_y + 0.025, 0.025, 0.016), skin * 0.4)
    mouth_y, half = y + tall * rng.uniform(0.48, 0.58), wide * rng.uniform(0.30, 0.46)
    smile, lips = rng.uniform(-0.02, 0.09), skin * np.array([0.85, 0.55, 0.55]) * rng.uniform(0.8, 1.05)
    canvas.paint(canvas.stroke(x - half, mouth_y, x + half, mouth_y, rng.uniform(0.06, 0.1), smile), lips)
    if rng.random() < 0.4:
        canvas.paint(canvas.stroke(x - half * 0.7, mouth_y, x + half * 0.7, mouth_y, 0.04, smile), (0.94, 0.92, 0.88))
    canvas.paint(canvas.stroke(x - half, mouth_y, x + half, mouth_y, 0.016, smile), skin * 0.25)


def _fringe(
    rng: np.random.Generator, canvas: Canvas, x: float, y: float, wide: float, tall: float, hair: Array
) -> None:
    """Hair over the upper forehead: the head's outline above a bent line."""
    outline = canvas.ellipse(x, y - 0.06, wide * 1.06, tall * 1.02)
    line = y - tall * rng.uniform(0.50, 0.72) + rng.uniform(-0.25, 0.25) * (canvas.x - x)
    line = line + rng.uniform(0, 0.5) * ((canvas.x - x) / wide) ** 2
    canvas.paint(outline * np.clip((line - canvas.y) / 0.03 + 0.5, 0, 1).astype(np.float32), hair)


def _texture(rng: np.random.Generator, canvas: Canvas) -> None:
    """Mild texture: noise of single pixels of the picture, and slow waves of light."""
    side = canvas.pixels.shape[0] // _OVER
    grain = rng.normal(0, 0.012, (side, side, 1)).repeat(_OVER, 0).repeat(_OVER, 1)
    canvas.pixels += grain.astype(np.float32)
    for _ in range(4):
        fx, fy, phase = rng.uniform(-12, 12), rng.uniform(-12, 12), rng.uniform(0, 2 * np.pi)
        canvas.pixels += (0.01 * np.sin(fx * canvas.x + fy * canvas.y + phase))[..., None]


def _glasses(rng: np.random.Generator, canvas: Canvas, x: float, eye_x: float, eye_y: float, wide: float) -> None:
    rx, ry = min(eye_x * 0.82, rng.uniform(0.17, 0.21)), rng.uniform(0.13, 0.17)
    power, rim = rng.uniform(2.0, 5.0), rng.uniform(0.03, 0.05)
    frame = rng.uniform(0.02, 0.25) * rng.uniform(0.5, 1.5, 3)
    tint = rng.uniform(0.3, 0.9, 3)
    for side in (-1, 1):
        cx = x + side * eye_x
        outer = canvas.ellipse(cx, eye_y + 0.01, rx + rim / 2, ry + rim / 2, power=power)
        inner = canvas.ellipse(cx, eye_y + 0.01, rx - rim / 2, ry - rim / 2, power=power)
        canvas.paint(inner, tint, 0.10)
        canvas.paint(np.clip(outer - inner, 0, 1), frame)
        canvas.paint(canvas.stroke(cx + side * rx, eye_y - 0.02, x + side * wide, eye_y - 0.04, rim), frame)
    canvas.paint(canvas.stroke(x - eye_x + rx, eye_y - 0.02, x + eye_x - rx, eye_y - 0.02, rim, -0.03), frame)
