"""Annotated image files as a detector's data set: what the readers of COCO and VOC share.

A reader turns its files into records; here they are checked against the images, and served.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .images import ImageError, image_size, read_image
from .problems import DataError, Problem, summarize
from .records import Annotation, Classes, Record

SLACK = 1.0
"""Pixels by which a box may reach over the image's edge before that is a problem; it is clipped."""

CHECKS = ("headers", "pixels")


@dataclass(frozen=True)
class _Item:
    """A checked record: the image's own size, and arrays in place of a million small objects."""

    id: Any
    path: str
    width: int
    height: int
    turn: bool
    boxes: np.ndarray  # (G, 4) float32
    labels: np.ndarray  # (G,) int64
    area: np.ndarray  # (G,) float32
    crowd: np.ndarray  # (G,) bool
    difficult: np.ndarray  # (G,) bool


class AnnotatedImages(Dataset):
    """Images with boxes. An item is `(image, target)`: image (3, H, W) float32 in [0, 1]; target
    is a dict of tensors for its G objects, of which there may be none:

    - boxes (G, 4) float32, x1, y1, x2, y2 in pixels, inside the image and of positive size;
    - labels (G,) int64 in [1, len(class_names)); area (G,) float32, in square pixels;
    - iscrowd, difficult (G,) bool: COCO's groups of objects, VOC's hardly visible ones;
    - image_id () int64: COCO's id of the image; its number in the data set for VOC.

    Attributes:
        classes: the `Classes`.
        image_ids: for each item the image's id in its files.
        problems: everything in the files that is wrong, a `Problem` each; `report()` sums them up.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[Record],
        classes: Classes,
        problems: Sequence[Problem],
        strict: bool,
        check: str,
        progress: Callable[[Iterable[Any]], Iterable[Any]] | None,
    ) -> None:
        if check not in CHECKS:
            raise ValueError(f"tilewright.data: check must be one of {CHECKS}, got {check!r}")
        self.name = name
        self.classes = classes
        self.problems = list(problems)
        self._items: list[_Item] = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            checked: Iterable[Any] = pool.map(lambda r: _check_image(r, check == "pixels"), records)
            if progress is not None:
                checked = progress(_Sized(checked, len(records)))
            for item, found in checked:
                self.problems += found
                if item is not None:
                    self._items.append(item)
        if strict and self.problems:
            raise DataError(f"tilewright.data: {name}: {summarize(self.problems, 5)}")
        if not self._items:
            raise DataError(
                f"tilewright.data: {name}: no image can be used; {summarize(self.problems, 5)}"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every label; label 0 is the background."""
        return self.classes.names

    @property
    def image_ids(self) -> list[Any]:
        return [item.id for item in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads image `index`; ImageError, naming the file, where that fails after all."""
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"tilewright.data: index {index} is out of range for {len(self)} images"
            )
        index %= len(self)
        item = self._items[index]
        image = read_image(item.path, turn=item.turn)
        if image.shape[1:] != (item.height, item.width):
            raise ImageError(
                f"{item.path}: the image was {item.width} x {item.height} when the data set "
                f"was opened, and is {image.shape[2]} x {image.shape[1]} now"
            )
        return image, self.target(index)

    def target(self, index: int) -> dict[str, Tensor]:
        """The target of item `index`, without reading its image."""
        item = self._items[index]
        return {
            "boxes": torch.tensor(item.boxes),
            "labels": torch.tensor(item.labels),
            "area": torch.tensor(item.area),
            "iscrowd": torch.tensor(item.crowd),
            "difficult": torch.tensor(item.difficult),
            "image_id": torch.tensor(item.id if isinstance(item.id, int) else index),
        }

    def path(self, index: int) -> str:
        """The file of image `index`."""
        return self._items[index].path

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of image `index`, without reading it."""
        return self._items[index].width, self._items[index].height

    def subset(self, indices: Iterable[int]) -> AnnotatedImages:
        """The same data set with only these images, in this order."""
        other = copy.copy(self)
        other._items = [self._items[i] for i in indices]
        return other

    def report(self) -> str:
        """What is in the data set, and what is wrong with it, in a few lines."""
        objects = sum(len(item.labels) for item in self._items)
        empty = sum(not len(item.labels) for item in self._items)
        return (
            f"{self.name}: {_count(len(self), 'image')} ({empty} without objects), "
            f"{_count(objects, 'object')} of "
            f"{_count(len(self.classes.categories), 'class', 'classes')}; "
            f"{summarize(self.problems)}"
        )


def without_ignored(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Boxes and labels to train on: without crowds and difficult objects."""
    kept = ~(target["iscrowd"] | target["difficult"])
    return {"boxes": target["boxes"][kept], "labels": target["labels"][kept]}


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


class _Sized:
    """An iterator that says how long it is, for progress bars."""

    def __init__(self, iterator: Iterable[Any], length: int) -> None:
        self._iterator, self._length = iterator, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Any:
        return iter(self._iterator)


def _check_image(record: Record, pixels: bool) -> tuple[_Item | None, list[Problem]]:
    """The record checked against its image, or None; and what is wrong."""
    lost = f"image left out with {len(record.annotations)} annotations"
    try:
        width, height, sideways = image_size(record.path)
        if pixels:
            read_image(record.path, dtype=torch.uint8)
    except ImageError as error:
        return None, [Problem(record.path, "", str(error).removeprefix(f"{record.path}: "), lost)]
    claimed = (record.width, record.height)
    # Annotators that ignore the orientation give the stored size: their boxes belong to the image
    # as stored. Where the two sizes are equal nothing tells, and the image is upright.
    turn = not (sideways and claimed == (width, height) and width != height)
    if sideways and turn:
        width, height = height, width
    if 0 not in claimed and claimed != (width, height):
        what = f"the size is given as {claimed[0]} x {claimed[1]}, but {record.path} is "
        return None, [Problem(record.file, record.place, f"{what}{width} x {height}", lost)]
    kept, problems = [], []
    for annotation in record.annotations:
        box, problem = _check_box(annotation, width, height)
        if problem is not None:
            problems.append(problem)
        if box is not None:
            kept.append((annotation, box))
    boxes = np.array([box for _, box in kept], dtype=np.float32).reshape(-1, 4)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).tolist()
    area = [own[i] if row.area is None else row.area for i, (row, _) in enumerate(kept)]
    item = _Item(
        record.id,
        record.path,
        width,
        height,
        turn,
        boxes,
        np.array([row.label for row, _ in kept], dtype=np.int64),
        np.array(area, dtype=np.float32),
        np.array([row.crowd for row, _ in kept], dtype=bool),
        np.array([row.difficult for row, _ in kept], dtype=bool),
    )
    return item, problems


def _check_box(
    annotation: Annotation, width: int, height: int
) -> tuple[tuple[float, float, float, float] | None, Problem | None]:
    """The box inside the image, or None, and what is wrong with it."""

    def problem(what: str, done: str) -> Problem:
        return Problem(annotation.file, annotation.place, f"the box {annotation.box} {what}", done)

    left_out = "annotation left out"
    x1, y1, x2, y2 = annotation.box
    if not all(map(math.isfinite, annotation.box)):
        return None, problem("is not finite", left_out)
    if not (x2 > x1 and y2 > y1):
        return None, problem("has no positive width and height", left_out)
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return None, problem(f"is outside of the {width} x {height} image", left_out)
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    left, top, right, bottom = map(np.float32, clipped)  # as the target will hold them
    if not (right > left and bottom > top):
        return None, problem("has no size in float32", left_out)
    if max(abs(a - b) for a, b in zip(clipped, annotation.box, strict=True)) > SLACK:
        return clipped, problem(f"reaches out of the {width} x {height} image", "box clipped")
    return clipped, None
