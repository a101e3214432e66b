"""The scanned digits that scenes are made of: who is held out, and how one is drawn at any size.

scikit-learn ships 1797 handwritten digits, scanned and reduced to 8 x 8 grey values. A cubic
enlargement with a contrast curve gives back a pen stroke with a sharp edge at 12 to 64 pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

CLASS_NAMES = ("background", *(str(digit) for digit in range(10)))
"""Name of every label: 0 is the background, label d + 1 is the digit d."""

INK = 0.3
"""Opacity from which a pixel counts as ink; boxes are tight around such pixels."""

SPLITS = ("train", "test")

_HELD_OUT = 0.25  # share of every class that only the test split shows
_SPLIT_SEED = 20240229  # fixed: whatever seed draws the scenes, held-out digits stay held out
_BORDER = 1  # empty cells around a scan, so that strokes at its edge can fade out
_CURVE = (0.3, 0.8)  # grey values (0..1) at which the pen begins and is opaque
_PROBE = 8  # samples per cell when measuring where the ink of a scan lies


@dataclass(frozen=True)
class Digits:
    """The scans of one split.

    Attributes:
        ids: (N,) int64, row of each scan in ``sklearn.datasets.load_digits()``.
        scans: (N, 10, 10) float32 in [0, 1], grey values with one empty cell around them.
        values: (N,) int64, the digit 0..9 each scan shows.
        extents: (N, 4) float32, x1, y1, x2, y2 of the ink, in cells of the padded scan.
    """

    ids: np.ndarray
    scans: np.ndarray
    values: np.ndarray
    extents: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def render(
        self, row: int, size: float, aspect: float = 1.0, angle: float = 0.0, shear: float = 0.0
    ) -> np.ndarray:
        """Draws scan `row` so that the longer side of its ink is `size` pixels, within one
        (within two where it is turned or sheared).

        Args:
            row: index into this split, 0 <= row < len(self).
            size: pixels, at least 8 (the scans are enlarged only).
            aspect: the width is multiplied by this before the longer side is measured.
            angle: degrees by which the digit is turned, clockwise, after it was sheared.
            shear: how far rows move to the right, as a share of their distance from the bottom.

        Returns:
            (h, w) float32 opacity in [0, 1], cropped so that its first and last row and column
            each hold ink (opacity >= INK).
        """
        if angle != 0.0 or shear != 0.0:
            return self._render_warped(row, size, _warp(aspect, angle, shear))
        x1, y1, x2, y2 = self.extents[row]
        cell_x, cell_y = aspect, 1.0
        scale = size / max((x2 - x1) * cell_x, (y2 - y1) * cell_y)
        across = _cubic_rows(x1, x2, (x2 - x1) * cell_x * scale, self.scans.shape[2])
        down = _cubic_rows(y1, y2, (y2 - y1) * cell_y * scale, self.scans.shape[1])
        opacity = _pen(down @ self.scans[row] @ across.T)
        return _crop_to_ink(opacity)

    def _render_warped(self, row: int, size: float, warp: np.ndarray) -> np.ndarray:
        """The same under a linear map (2, 2) from the scan to the page, both x before y."""
        scan = self.scans[row]
        ink = np.argwhere(_enlarged(scan))[:, ::-1]
        page = ((ink + 0.5) / _PROBE) @ warp.T
        low, high = page.min(axis=0), page.max(axis=0)
        step = (high - low + 1 / _PROBE).max() / size
        return _crop_to_ink(_warped(scan, warp, low, high, step))


@functools.cache
def load_split(split: str) -> Digits:
    """Loads the scans of `split` ("train": three quarters of every class, "test": the others).

    Raises:
        ValueError: for another split.
        ImportError: where scikit-learn, which ships the scans, is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"tilewright.data: split must be one of {SPLITS}, got {split!r}")
    scans, values = _load_scans()
    rng = np.random.Generator(np.random.Philox(key=_SPLIT_SEED))
    held_out = np.zeros(len(values), dtype=bool)
    for value in range(10):
        rows = rng.permutation(np.flatnonzero(values == value))
        held_out[rows[: round(len(rows) * _HELD_OUT)]] = True
    ids = np.flatnonzero(held_out if split == "test" else ~held_out)
    return Digits(ids, scans[ids], values[ids], _measure(scans[ids]))


def _load_scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans, (N, 10, 10) float32 in [0, 1], and the digits they show, (N,) int64."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "tilewright.data: the digit scans come with scikit-learn, which is not installed; "
            "run `pip install scikit-learn`"
        ) from error
    raw = load_digits()
    scans = np.pad(raw.images / 16.0, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))
    return scans.astype(np.float32), raw.target.astype(np.int64)


def _measure(scans: np.ndarray) -> np.ndarray:
    """Where the ink of each scan lies: (N, 4) float32 x1, y1, x2, y2 in cells."""
    ink = _enlarged(scans)
    extents = np.empty((len(scans), 4), dtype=np.float32)
    for axis, (low, high) in ((1, (0, 2)), (2, (1, 3))):
        seen = ink.any(axis=axis)
        extents[:, low] = seen.argmax(axis=1) / _PROBE
        extents[:, high] = (seen.shape[1] - seen[:, ::-1].argmax(axis=1)) / _PROBE
    return extents


def _enlarged(scans: np.ndarray) -> np.ndarray:
    """Where scans (..., cells, cells) have ink: (..., cells * probe, cells * probe) bool."""
    cells = scans.shape[-1]
    rows = _cubic_rows(0.0, cells, cells * _PROBE, cells, margin=0)
    return _pen(rows @ scans @ rows.T) >= INK


def _cubic_rows(low: float, high: float, pixels: float, cells: int, margin: int = 2) -> np.ndarray:
    """Catmull-Rom weights that enlarge `cells` grey values: (n, cells) float32.

    Pixel centres cover [low, high] in `pixels` steps, and `margin` pixels more at either end.
    """
    count = max(int(np.ceil(pixels)), 1)
    step = (high - low) / pixels
    start = 0.5 * (low + high) - 0.5 * count * step  # the crop stays centred on the ink
    centres = start + (np.arange(-margin, count + margin, dtype=np.float32) + 0.5) * step
    return _catmull_rom(np.abs(centres[:, None] - (np.arange(cells, dtype=np.float32) + 0.5)))


def _catmull_rom(distance: np.ndarray) -> np.ndarray:
    """The weight of a grey value so many cells away, float32."""
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0)).astype(np.float32)


def _warp(aspect: float, angle: float, shear: float) -> np.ndarray:
    """(2, 2): widened, sheared, turned."""
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (rotation @ np.array([[aspect, -shear], [0.0, 1.0]])).astype(np.float32)


def _warped(
    scan: np.ndarray, warp: np.ndarray, low: np.ndarray, high: np.ndarray, step: float
) -> np.ndarray:
    """Opacity of a scan on a page of pixels `step` cells wide, from `low` to `high` (x, y)."""
    counts = np.ceil((high - low) / step).astype(int) + 4
    middle = (low + high) / 2
    across, down = ((np.arange(n) + 0.5 - n / 2) * step for n in counts)
    page = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2) + middle
    x, y = (page @ np.linalg.inv(warp).T).T.astype(np.float32)
    grey = np.zeros(len(x), dtype=np.float32)
    (columns, weights_x), (rows, weights_y) = (_neighbours(t, len(scan)) for t in (x, y))
    for i in range(4):
        line = sum(weights_x[j] * scan[rows[i], columns[j]] for j in range(4))
        grey += weights_y[i] * line
    return _pen(grey.reshape(counts[1], counts[0]))


def _neighbours(places: np.ndarray, cells: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The four cells around each place and their Catmull-Rom weights; 0 where there is no cell."""
    first = np.floor(places - 0.5).astype(int) - 1
    found = [first + i for i in range(4)]
    weights = [
        _catmull_rom(np.abs(places - (at + 0.5))) * ((at >= 0) & (at < cells)) for at in found
    ]
    return [np.clip(at, 0, cells - 1) for at in found], weights


def _pen(grey: np.ndarray) -> np.ndarray:
    """Grey value to opacity: a smooth step, so that enlarged strokes keep a sharp edge."""
    begin, opaque = _CURVE
    t = np.clip((grey - begin) * np.float32(1.0 / (opaque - begin)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _crop_to_ink(opacity: np.ndarray) -> np.ndarray:
    """The smallest rectangle of `opacity` that holds all its ink."""
    ink = opacity >= INK
    rows = np.flatnonzero(ink.any(axis=1))
    columns = np.flatnonzero(ink.any(axis=0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
