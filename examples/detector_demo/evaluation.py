"""Mean average precision on held-out images, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from tilewright.data import collate

_BATCH = 8


@dataclass(frozen=True)
class Result:
    """What COCOeval says, in [0, 1].

    Attributes:
        map50: mean average precision over the classes at an overlap of 0.5.
        map5095: the mean over overlaps of 0.5, 0.55, ... 0.95.
        recall: the mean over those overlaps of the recall with at most 100 detections.
        images: number of images.
        objects: number of ground truths in them, without those that are not counted.
        classes: for each class its number of ground truths, and its average precision at 0.5 and
            over all overlaps; none where there are no ground truths.
    """

    map50: float
    map5095: float
    recall: float
    images: int
    objects: int
    classes: dict[str, tuple[int, float | None, float | None]]

    def table(self) -> str:
        """A line for each class with ground truths, and their mean."""
        width = max(map(len, ("class", *self.classes)))
        lines = [f"{'class':{width}}  objects  mAP@.5  mAP@[.5:.95]"]
        rows = [(name, *row) for name, row in self.classes.items() if row[1] is not None]
        for name, count, at_half, mean in (*rows, ("all", self.objects, self.map50, self.map5095)):
            lines.append(f"{name:{width}}  {count:7}  {at_half:6.3f}  {mean:12.3f}")
        absent = sum(row[1] is None for row in self.classes.values())
        if absent:
            lines.append(f"({absent} classes do not occur in the held-out images)")
        return "\n".join(lines)


@torch.no_grad()
def detect(model: Any, scenes: Dataset) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Detections of every image, as the model returns them in evaluation mode, and the targets."""
    model.eval()
    found: list[dict[str, Tensor]] = []
    truths: list[dict[str, Tensor]] = []
    for start in tqdm(range(0, len(scenes), _BATCH), desc="held-out images", mininterval=1.0):
        batch = range(start, min(start + _BATCH, len(scenes)))
        images, targets = collate([scenes[i] for i in batch])
        found.extend(model(images)[1])
        truths.extend(targets)
    return found, truths


def evaluate(
    detections: Sequence[dict[str, Tensor]],
    targets: Sequence[dict[str, Tensor]],
    class_names: Sequence[str],
) -> Result:
    """Compares `detections`, one dict per image, with the ground truth of the same images.

    Crowds (iscrowd) and difficult objects are neither wanted nor held against a detection.
    """
    truths = [
        {
            "image_id": i,
            "category_id": label,
            "bbox": _corner_size(box),
            "iscrowd": int(crowd),
            "difficult": difficult,
            "area": (box[2] - box[0]) * (box[3] - box[1]),
        }
        for i, target in enumerate(targets)
        for (box, label), crowd, difficult in zip(
            _pairs(target), _flags(target, "iscrowd"), _flags(target, "difficult"), strict=True
        )
    ]
    for number, truth in enumerate(truths, start=1):  # COCOeval takes id 0 for "no match"
        truth["id"] = number
    found = [
        {"image_id": i, "category_id": label, "bbox": _corner_size(box), "score": score}
        for i, detection in enumerate(detections)
        for (box, label), score in zip(_pairs(detection), detection["scores"].tolist(), strict=True)
    ]
    counts = dict.fromkeys(range(1, len(class_names)), 0)
    for truth in truths:
        counts[truth["category_id"]] += not (truth["iscrowd"] or truth["difficult"])
    objects = sum(counts.values())
    if not found or not objects:
        classes = {
            class_names[i]: (n, 0.0, 0.0) if n else (0, None, None) for i, n in counts.items()
        }
        return Result(0.0, 0.0, 0.0, len(targets), objects, classes)
    with contextlib.redirect_stdout(io.StringIO()):  # its report comes in twelve lines
        truth_set = COCO()
        truth_set.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(targets))],
            "categories": [{"id": i, "name": class_names[i]} for i in counts],
            "annotations": truths,
        }
        truth_set.createIndex()
        comparison = _Comparison(truth_set, truth_set.loadRes(found), "bbox")
        comparison.evaluate()
        comparison.accumulate()
        comparison.summarize()
    stats = [max(float(value), 0.0) for value in comparison.stats]  # -1 where there is nothing
    precision = comparison.eval["precision"][:, :, :, 0, -1]  # (overlaps, recalls, classes)
    classes = {}
    for place, (label, count) in enumerate(counts.items()):
        by_overlap = precision[:, :, place].mean(axis=1)
        means = (float(by_overlap[0]), float(by_overlap.mean())) if count else (None, None)
        classes[class_names[label]] = (count, *means)
    return Result(stats[1], stats[0], stats[8], len(targets), objects, classes)


class _Comparison(COCOeval):
    """COCOeval that knows VOC's difficult objects: like crowds, but met by their own box alone."""

    def _prepare(self) -> None:
        super()._prepare()
        for truths in self._gts.values():
            for truth in truths:
                truth["ignore"] = truth["ignore"] or truth["difficult"]


def _flags(target: dict[str, Tensor], name: str) -> list[bool]:
    return target[name].tolist() if name in target else [False] * len(target["labels"])


def _pairs(boxes_and_labels: dict[str, Tensor]) -> list[tuple[list[float], int]]:
    boxes, labels = boxes_and_labels["boxes"].tolist(), boxes_and_labels["labels"].tolist()
    return list(zip(boxes, labels, strict=True))


def _corner_size(box: list[float]) -> list[float]:
    """x1, y1, x2, y2 to COCO's x, y, width, height."""
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
