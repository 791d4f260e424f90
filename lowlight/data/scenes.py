"""Procedural scenes: dead leaves, gradients, lines and lamps, for what photographs seldom show.

The dead-leaves model (overlapping shapes of power-law size) has the edge statistics of natural pictures:
A. Lee, D. Mumford, J. Huang, "Occlusion models for natural images" (IJCV 2001).
"""

import numpy as np
import numpy.typing as npt

SCENE_PX = 640


def procedural_scene(seed: int, size_px: int = SCENE_PX) -> npt.NDArray[np.uint8]:
    """One scene, uint8 `[size, size, 3]` in the sRGB curve; the same seed gives the same scene."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:size_px, 0:size_px].astype(np.float32)
    canvas = np.empty((size_px, size_px, 3), dtype=np.float32)
    canvas[:] = _shaded(rng, xs, ys, size_px)
    for _ in range(int(rng.integers(60, 220))):
        _leaf(rng, canvas)
    if rng.random() < 0.5:
        _stripes(rng, canvas)
    for _ in range(int(rng.integers(0, 4))):
        _lamp(rng, canvas)
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _shaded(
    rng: np.random.Generator, xs: npt.NDArray[np.float32], ys: npt.NDArray[np.float32], size_px: int
) -> npt.NDArray[np.float32]:
    """Shade with a colour that changes slowly across the frame."""
    first, second = _colour(rng), _colour(rng)
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * xs + np.sin(angle) * ys) / size_px
    along = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    mixed = first + (second - first) * along[..., None] * rng.uniform(0.1, 1)
    return np.asarray(mixed, dtype=np.float32)


def _colour(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw a colour: mostly muted, now and then saturated, dark ones more often than bright ones."""
    gray = rng.beta(1.2, 1.6)
    chroma = rng.normal(0, 0.08 if rng.random() < 0.7 else 0.3, 3)
    return np.clip(gray + chroma, 0, 1).astype(np.float32)


def _leaf(rng: np.random.Generator, canvas: npt.NDArray[np.float32]) -> None:
    """Paint one ellipse or rectangle, shaded, of power-law size, over what is there."""
    size_px = canvas.shape[0]
    radius = float(np.clip(4 * (1 - rng.random()) ** -0.8, 4, size_px / 3))
    aspect, angle = rng.uniform(0.25, 1), rng.uniform(0, np.pi)
    cy, cx = rng.uniform(0, size_px, 2)
    top, bottom = int(max(cy - radius, 0)), int(min(cy + radius + 1, size_px))
    left, right = int(max(cx - radius, 0)), int(min(cx + radius + 1, size_px))
    if bottom - top < 2 or right - left < 2:
        return
    ys, xs = np.mgrid[top:bottom, left:right].astype(np.float32)
    u = (xs - cx) * np.cos(angle) + (ys - cy) * np.sin(angle)
    v = (ys - cy) * np.cos(angle) - (xs - cx) * np.sin(angle)
    u, v = np.abs(u) / radius, np.abs(v) / (radius * aspect)
    distance = np.hypot(u, v) if rng.random() < 0.6 else np.maximum(u, v) * 1.3
    cover = np.clip((1 - distance) * radius, 0, 1)[..., None]
    patch = canvas[top:bottom, left:right]
    paint = _shaded(rng, xs, ys, size_px)
    if rng.random() < 0.3:
        paint = paint + rng.normal(0, 0.06, paint.shape[:2]).astype(np.float32)[..., None]
    patch += cover * (paint - patch)


def _stripes(rng: np.random.Generator, canvas: npt.NDArray[np.float32]) -> None:
    """Paint a patch of fine parallel lines, where demosaicing and denoising are hardest."""
    size_px = canvas.shape[0]
    side = int(rng.integers(80, 240))
    top, left = rng.integers(0, size_px - side, 2)
    ys, xs = np.mgrid[0:side, 0:side].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 16)
    wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * 2 * np.pi / period)
    cover = (np.clip(wave * period / 2, -1, 1) / 2 + 0.5)[..., None].astype(np.float32)
    canvas[top : top + side, left : left + side] = _colour(rng) * cover + _colour(rng) * (1 - cover)


def _lamp(rng: np.random.Generator, canvas: npt.NDArray[np.float32]) -> None:
    """Paint a small light source with a halo."""
    size_px = canvas.shape[0]
    cy, cx = rng.uniform(0, size_px, 2)
    ys, xs = np.mgrid[0:size_px, 0:size_px].astype(np.float32)
    distance = np.hypot(xs - cx, ys - cy)
    core = rng.uniform(3, 24)
    tint = 1 - np.array([0, 0.1, 0.35], dtype=np.float32) * rng.random()
    halo = 0.5 * np.exp(-np.maximum(distance - core, 0) / (core * rng.uniform(1, 5)))
    glow = np.where(distance < core, 1.0, halo)[..., None] * tint
    np.maximum(canvas, canvas * (1 - glow) + glow, out=canvas)
