"""What surrounds the digits of a scene: uneven paper, pen strokes that are no digits, ink colours.

Everything is numpy on one small canvas and takes its randomness from the generator it is given.
"""

from __future__ import annotations

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_MIN_CONTRAST = 0.3  # of luminance, between a digit and what it is painted on
_REACH = 3  # pixels around a pen position that one dab may touch
_DAB_Y, _DAB_X = (
    grid.reshape(1, -1) for grid in np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1]
)


def paper(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A sheet of one muted colour with soft shades: (3, height, width) float32."""
    base = rng.uniform(0.15, 0.85) + rng.uniform(-0.12, 0.12, size=(3, 1, 1))
    light = rng.uniform(-1.0, 1.0, size=(1, 4, 4)) * rng.uniform(0.02, 0.15)
    shades = light + rng.uniform(-0.05, 0.05, size=(3, 4, 4))
    coarse = (base + shades).astype(np.float32)
    return _linear_rows(4, height) @ coarse @ _linear_rows(4, width).T


def add_noise(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Sensor noise of a strength drawn once per scene; the result is cut to [0, 1]."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise *= np.float32(rng.uniform(0.01, 0.06))
    noise += canvas
    return np.clip(noise, 0.0, 1.0, out=noise)


def add_strokes(rng: np.random.Generator, canvas: np.ndarray, count: int) -> None:
    """Paints `count` strokes on `canvas` (3, H, W): long sweeps, or ticks too small for a digit."""
    height, width = canvas.shape[1:]
    for _ in range(count):
        if rng.random() < 0.6:
            length = rng.uniform(0.6, 1.2) * max(height, width)
            bend = 0.3 * length
        else:
            length, bend = rng.uniform(3.0, 8.0), 1.5
        angle = rng.uniform(0.0, 2.0 * np.pi)
        middle = rng.uniform(0.0, 1.0, size=2) * (width, height)
        half = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
        control = middle + rng.uniform(-bend, bend, size=2)
        points = _bezier(middle - half, control, middle + half, spacing=0.8)
        opacity = _draw(points, rng.uniform(0.4, 1.5), height, width)
        opacity *= np.float32(rng.uniform(0.5, 1.0))
        colour = rng.random(3, dtype=np.float32)[:, None, None]
        canvas += opacity * (colour - canvas)


def ink_colour(rng: np.random.Generator, under: np.ndarray) -> np.ndarray:
    """A colour that is visible on the patch `under` (3, h, w): (3, 1, 1) float32."""
    ground = float(_LUMA @ under.mean(axis=(1, 2)))
    choices = rng.random((8, 3), dtype=np.float32)
    contrast = np.abs(choices @ _LUMA - ground)
    best = int(contrast.argmax())
    if contrast[best] >= _MIN_CONTRAST:
        return choices[best][:, None, None]
    return np.full((3, 1, 1), 0.0 if ground > 0.5 else 1.0, dtype=np.float32)


def _bezier(start: np.ndarray, control: np.ndarray, end: np.ndarray, spacing: float) -> np.ndarray:
    """Points on a quadratic curve, about `spacing` pixels apart: (P, 2) float, x and y."""
    rough = np.linalg.norm(control - start) + np.linalg.norm(end - control)
    t = np.linspace(0.0, 1.0, max(int(rough / spacing), 2))[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _draw(points: np.ndarray, radius: float, height: int, width: int) -> np.ndarray:
    """Opacity of a round pen of `radius` <= 2 pixels led over `points`: (height, width)."""
    opacity = np.zeros((height, width), dtype=np.float32)
    corner = np.floor(points).astype(np.int64)
    x = corner[:, :1] + _DAB_X  # (P, dab)
    y = corner[:, 1:] + _DAB_Y
    distance = np.hypot(x + 0.5 - points[:, :1], y + 0.5 - points[:, 1:])
    dab = np.clip(radius + 0.5 - distance, 0.0, 1.0).astype(np.float32)
    inside = (dab > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    np.maximum.at(opacity.reshape(-1), (y * width + x)[inside], dab[inside])
    return opacity


def _linear_rows(knots: int, pixels: int) -> np.ndarray:
    """Weights that spread `knots` values evenly over `pixels`: (pixels, knots) float32."""
    position = np.linspace(0.0, knots - 1.0, pixels, dtype=np.float32)
    return np.clip(1.0 - np.abs(position[:, None] - np.arange(knots)), 0.0, 1.0).astype(np.float32)
