"""Scenes of digits with boxes and labels: the data set a detector trains on out of the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from . import painting
from .digits import INK, SPLITS, load_split

MIN_SIDE = 128
"""Shortest side of a scene, in pixels."""

MAX_OVERLAP = 0.3
"""Largest share of a box that all other boxes together may cover, so that its digit stays seen."""

_PLACES = 24  # positions tried for a digit; where none is free the scene goes without it
_NEAR = 0.3  # share of the digits that look for a place touching an earlier one


class DigitScenes(Dataset):
    """Scanned digits at random places of a noisy, scribbled-on sheet.

    Scene i depends on its number and the arguments but `length` alone: not on the order in which
    scenes are asked for, on worker processes, or on any global random state (another version of
    numpy may draw other numbers). The digits of "test" scenes never occur in "train" scenes,
    whatever the seeds.

    An item is `(image, target)`: image (3, H, W) float32 in [0, 1]; target["boxes"] (G, 4)
    float32, x1, y1, x2, y2 in pixels, tight around the ink (x2 and y2 are the far edges of the
    last pixels); target["labels"] (G,) int64, digit + 1 (`CLASS_NAMES`). Boxes lie inside the
    scene, G is at least 1, and a box is covered by others on at most `MAX_OVERLAP` of its area.

    Args:
        split: "train" or "test".
        size: side of the square scenes in pixels, or (height, width); at least 128.
        length: number of scenes, at least 1.
        seed: 0 <= seed < 2**63.
        digit_size: smallest and largest longer side of a digit's ink, in pixels (met within one,
            within two where digits are turned or sheared).
        digits: fewest and most digits of a scene; fewer where no place is free.
        rotation: digits are turned by up to so many degrees, either way; at most 180.
        shear: their rows are moved sideways by up to this share of their height, either way; at
            most 1.

    Raises:
        TypeError, ValueError: for an argument outside of what is said above.
        ImportError: where scikit-learn is missing.
    """

    def __init__(
        self,
        split: str = "train",
        size: int | tuple[int, int] = MIN_SIDE,
        length: int = 1000,
        seed: int = 0,
        digit_size: tuple[int, int] = (12, 64),
        digits: tuple[int, int] = (1, 8),
        rotation: float = 0.0,
        shear: float = 0.0,
    ) -> None:
        pair = (size, size) if isinstance(size, int) else size
        self.height, self.width = _int_pair("size", pair, MIN_SIDE, 1 << 15)
        shorter = min(self.height, self.width)
        self.digit_size = _int_pair("digit_size", digit_size, 8, shorter // 2, ordered=True)
        self.digits = _int_pair("digits", digits, 1, 1000, ordered=True)
        (self.length,) = _ints("length", (length,), 1, 1 << 62)
        (self.seed,) = _ints("seed", (seed,), 0, (1 << 63) - 1)
        self.rotation = _limit("rotation", rotation, 180.0)
        self.shear = _limit("shear", shear, 1.0)
        self.source = load_split(split)
        self.split = split

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Draws scene `index`; IndexError outside of [-length, length)."""
        rng = self._generator(index)
        shapes, boxes, rows = self._lay_out(rng)
        canvas = painting.paper(rng, self.height, self.width)
        painting.add_strokes(rng, canvas, int(rng.integers(1, 6)))
        for shape, (x1, y1, x2, y2) in zip(shapes, boxes, strict=True):
            patch = canvas[:, y1:y2, x1:x2]
            patch += shape * (painting.ink_colour(rng, patch) - patch)
        image = painting.add_noise(rng, canvas)
        target = {
            "boxes": torch.tensor(boxes, dtype=torch.float32),
            "labels": torch.from_numpy(self.source.values[rows] + 1),
        }
        return torch.from_numpy(image), target

    def masks(self, index: int) -> Tensor:
        """The ink of each digit of scene `index`, hidden parts too: (G, H, W) bool."""
        shapes, boxes, _ = self._lay_out(self._generator(index))
        masks = torch.zeros(len(boxes), self.height, self.width, dtype=torch.bool)
        for mask, shape, (x1, y1, x2, y2) in zip(masks, shapes, boxes, strict=True):
            mask[y1:y2, x1:x2] = torch.from_numpy(shape >= INK)
        return masks

    def digit_ids(self, index: int) -> list[int]:
        """Rows of `sklearn.datasets.load_digits()` that scene `index` shows, in box order."""
        _, _, rows = self._lay_out(self._generator(index))
        return self.source.ids[rows].tolist()

    def _generator(self, index: int) -> np.random.Generator:
        """The random stream of one scene: the scene's number is the high word of the counter."""
        if not -self.length <= index < self.length:
            raise IndexError(f"DigitScenes: index {index} is out of range for {self.length} scenes")
        key = np.array([self.seed, SPLITS.index(self.split)], dtype=np.uint64)
        counter = np.array([0, 0, 0, index % self.length], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def _lay_out(
        self, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], list[list[int]], list[int]]:
        """Chooses digits and places: opacities (h, w), boxes x1, y1, x2, y2, rows of the source.

        Larger digits come first, so that what is painted over another is the smaller of the two.
        """
        wanted = int(rng.integers(self.digits[0], self.digits[1] + 1))
        low, high = self.digit_size
        sizes = np.sort(np.exp(rng.uniform(np.log(low), np.log(high), size=wanted)))[::-1]
        candidates = rng.integers(len(self.source), size=wanted)
        aspects = rng.uniform(0.8, 1.25, size=wanted)
        near = rng.random(wanted) < _NEAR
        warps = np.zeros((wanted, 2))
        if self.rotation > 0 or self.shear > 0:
            warps = rng.uniform(-1.0, 1.0, size=(wanted, 2)) * (self.rotation, self.shear)
        shapes: list[np.ndarray] = []
        rows: list[int] = []
        boxes = np.empty((0, 4), dtype=np.int64)
        covered = np.empty(0)
        drawn = zip(sizes, candidates, aspects, near, warps, strict=True)
        for size, row, aspect, close, (angle, shear) in drawn:
            shape = self.source.render(int(row), float(size), float(aspect), angle, shear)
            places = self._places(rng, shape.shape, boxes if close else None)
            overlaps = _intersections(places, boxes)  # (_PLACES, placed)
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            mine = overlaps.sum(axis=1)
            free = (mine <= MAX_OVERLAP * shape.size) & (
                (covered + overlaps <= MAX_OVERLAP * areas).all(axis=1)
            )
            if not free.any():
                continue
            pick = int(free.argmax())
            covered = np.append(covered + overlaps[pick], mine[pick])
            boxes = np.concatenate([boxes, places[pick : pick + 1]])
            shapes.append(shape)
            rows.append(int(row))
        return shapes, boxes.tolist(), rows

    def _places(
        self, rng: np.random.Generator, shape: tuple[int, ...], beside: np.ndarray | None
    ) -> np.ndarray:
        """Boxes for a digit of `shape`, anywhere or on the rim of a box: (_PLACES, 4) int64."""
        limit = np.array([self.width - shape[1], self.height - shape[0]])
        corner = rng.integers(0, limit + 1, size=(_PLACES, 2))
        if beside is not None and len(beside):
            other = beside[rng.integers(len(beside), size=_PLACES)]
            reach = np.array([shape[1], shape[0]])
            t = rng.random((_PLACES, 2))
            low, high = other[:, :2] - reach, other[:, 2:]
            corner = np.clip(np.floor(low + t * (high - low)).astype(np.int64), 0, limit)
        return np.concatenate([corner, corner + np.array([shape[1], shape[0]])], axis=1)


def collate(
    items: Sequence[tuple[Tensor, dict[str, Tensor]]],
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A batch as detectors take it: a list of images and a list of targets (for a DataLoader)."""
    return [image for image, _ in items], [target for _, target in items]


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas common to each box of `a` (N, 4) and each of `b` (M, 4), in pixels: (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def _int_pair(name: str, value: Any, low: int, high: int, ordered: bool = False) -> tuple[int, int]:
    """Checks a pair of integers in [low, high]; `ordered` asks that the first be the smaller."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"DigitScenes: {name} must be two integers, got {value!r}")
    first, second = _ints(name, value, low, high)
    if ordered and first > second:
        raise ValueError(f"DigitScenes: {name} must not decrease, got {value!r}")
    return first, second


def _limit(name: str, value: Any, most: float) -> float:
    """Checks a number in [0, most]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"DigitScenes: {name} must be a number, got {value!r}")
    if not 0 <= value <= most:
        raise ValueError(f"DigitScenes: {name} must be in [0, {most:g}], got {value}")
    return float(value)


def _ints(name: str, values: Sequence[Any], low: int, high: int) -> tuple[int, ...]:
    """Checks that every value is an integer (bool is none) in [low, high]."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"DigitScenes: {name} must be an integer, got {value!r}")
        if not low <= value <= high:
            raise ValueError(f"DigitScenes: {name} must be in [{low}, {high}], got {value}")
    return tuple(int(value) for value in values)
