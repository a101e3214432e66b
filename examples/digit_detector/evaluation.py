"""Mean average precision on held-out scenes, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from tqdm import tqdm

from tilewright.data import CLASS_NAMES, DigitScenes, collate

_BATCH = 8


@dataclass(frozen=True)
class Result:
    """What COCOeval says, in [0, 1].

    Attributes:
        map50: mean average precision over the classes at an overlap of 0.5.
        map5095: the mean over overlaps of 0.5, 0.55, ... 0.95.
        recall: the mean over those overlaps of the recall with at most 100 detections.
        scenes: number of scenes.
        digits: number of ground truths in them.
    """

    map50: float
    map5095: float
    recall: float
    scenes: int
    digits: int


@torch.no_grad()
def detect(model: Any, scenes: DigitScenes) -> list[dict[str, Tensor]]:
    """Detections of every scene, as the model returns them in evaluation mode."""
    model.eval()
    found: list[dict[str, Tensor]] = []
    for start in tqdm(range(0, len(scenes), _BATCH), desc="held-out scenes", mininterval=1.0):
        batch = range(start, min(start + _BATCH, len(scenes)))
        images, _ = collate([scenes[i] for i in batch])
        found.extend(model(images)[1])
    return found


def evaluate(detections: list[dict[str, Tensor]], scenes: DigitScenes) -> Result:
    """Compares `detections`, one dict per scene, with the ground truth of `scenes`."""
    truths = [
        {
            "image_id": i,
            "category_id": label,
            "bbox": _corner_size(box),
            "iscrowd": 0,
            "area": (box[2] - box[0]) * (box[3] - box[1]),
        }
        for i in range(len(scenes))
        for box, label in _pairs(scenes[i][1])
    ]
    for number, truth in enumerate(truths, start=1):  # COCOeval takes id 0 for "no match"
        truth["id"] = number
    found = [
        {"image_id": i, "category_id": label, "bbox": _corner_size(box), "score": score}
        for i, detection in enumerate(detections)
        for (box, label), score in zip(_pairs(detection), detection["scores"].tolist(), strict=True)
    ]
    if not found:
        return Result(0.0, 0.0, 0.0, len(scenes), len(truths))
    with contextlib.redirect_stdout(io.StringIO()):  # its report comes in twelve lines
        truth_set = COCO()
        truth_set.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(scenes))],
            "categories": [{"id": i, "name": CLASS_NAMES[i]} for i in range(1, len(CLASS_NAMES))],
            "annotations": truths,
        }
        truth_set.createIndex()
        comparison = COCOeval(truth_set, truth_set.loadRes(found), "bbox")
        comparison.evaluate()
        comparison.accumulate()
        comparison.summarize()
    stats = [max(float(value), 0.0) for value in comparison.stats]  # -1 where there is nothing
    return Result(stats[1], stats[0], stats[8], len(scenes), len(truths))


def _pairs(boxes_and_labels: dict[str, Tensor]) -> list[tuple[list[float], int]]:
    boxes, labels = boxes_and_labels["boxes"].tolist(), boxes_and_labels["labels"].tolist()
    return list(zip(boxes, labels, strict=True))


def _corner_size(box: list[float]) -> list[float]:
    """x1, y1, x2, y2 to COCO's x, y, width, height."""
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
