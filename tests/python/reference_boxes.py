"""Slow, obvious references for the box operators: Python floats, one box at a time."""

import math

import torch
from torch import Tensor


def _rows(boxes: Tensor) -> list[list[float]]:
    return boxes.double().tolist()


def area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Intersection, union and hull of a pair."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = width * height if width > 0 and height > 0 else 0.0
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return intersection, area(a) + area(b) - intersection, hull


def _usable(a: list[float], b: list[float]) -> bool:
    return all(math.isfinite(value) for value in a + b)


def iou(a: list[float], b: list[float]) -> float:
    if not _usable(a, b):
        return 0.0
    intersection, union, _ = _overlap(a, b)
    return intersection / union if union > 0 else 0.0


def generalized_iou(a: list[float], b: list[float]) -> float:
    intersection, union, hull = _overlap(a, b)
    return intersection / union - (hull - union) / hull if union > 0 and hull > 0 else 0.0


def pairwise(function, boxes1: Tensor, boxes2: Tensor) -> Tensor:
    rows = [[function(a, b) for b in _rows(boxes2)] for a in _rows(boxes1)]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(boxes1), len(boxes2))


def _centred(box: list[float]) -> tuple[float, float, float, float]:
    width, height = box[2] - box[0], box[3] - box[1]
    return box[0] + width / 2, box[1] + height / 2, width, height


def encode(reference: Tensor, proposals: Tensor, weights: list[float]) -> Tensor:
    out = []
    for to, start in zip(_rows(reference), _rows(proposals), strict=True):
        x, y, w, h = _centred(to)
        px, py, pw, ph = _centred(start)
        if min(w, h, pw, ph) <= 0:
            out.append([0.0] * 4)
            continue
        deltas = [(x - px) / pw, (y - py) / ph, math.log(w / pw), math.log(h / ph)]
        out.append([weight * delta for weight, delta in zip(weights, deltas, strict=True)])
    return torch.tensor(out, dtype=torch.float64).reshape(-1, 4)


def decode(deltas: Tensor, boxes: Tensor, weights: list[float], clip: float) -> Tensor:
    out = []
    for row, box in zip(deltas.double().tolist(), _rows(boxes), strict=True):
        px, py, pw, ph = _centred(box)
        decoded = []
        for k in range(0, len(row), 4):
            dx, dy, dw, dh = (row[k + part] / weights[part] for part in range(4))
            x, y = px + dx * pw, py + dy * ph
            w, h = pw * math.exp(min(dw, clip)), ph * math.exp(min(dh, clip))
            decoded += [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        out.append(decoded)
    return torch.tensor(out, dtype=torch.float64).reshape(deltas.shape)


def clip(box: list[float], height: float, width: float) -> list[float]:
    return [min(max(v, 0.0), limit) for v, limit in zip(box, [width, height] * 2, strict=True)]


def anchors(
    maps: list[tuple[int, int]],
    sizes: list[list[float]],
    ratios: list[list[float]],
    image: tuple[int, int],
) -> Tensor:
    out = []
    for (rows, columns), level_sizes, level_ratios in zip(maps, sizes, ratios, strict=True):
        for row in range(rows):
            for column in range(columns):
                x, y = column * (image[1] // columns), row * (image[0] // rows)
                for ratio in level_ratios:
                    for size in level_sizes:
                        # round() of Python rounds half to even.
                        half_width = round(size / math.sqrt(ratio) / 2)
                        half_height = round(size * math.sqrt(ratio) / 2)
                        out.append(
                            [x - half_width, y - half_height, x + half_width, y + half_height]
                        )
    return torch.tensor(out, dtype=torch.float64)


def match(overlaps: Tensor, high: float, low: float, allow_low_quality: bool) -> Tensor:
    truths, count = overlaps.shape
    table = overlaps.tolist()
    best_of_truth = [max(row) if row else 0.0 for row in table]
    out = []
    for j in range(count):
        column = [table[i][j] for i in range(truths)]
        if not column:
            out.append(-1)
            continue
        best = column.index(max(column))
        rescued = any(column[i] == best_of_truth[i] for i in range(truths))
        if column[best] >= high or (allow_low_quality and rescued):
            out.append(best)
        else:
            out.append(-2 if column[best] >= low else -1)
    return torch.tensor(out, dtype=torch.int64)


def sample(labels: Tensor, noise: Tensor, size: int, fraction: float) -> tuple[Tensor, Tensor]:
    keys = noise.float().tolist()
    order = sorted(range(len(keys)), key=lambda i: (keys[i], i))
    positives = [i for i in order if labels[i] >= 1][: int(size * fraction)]
    negatives = [i for i in order if labels[i] == 0][: size - len(positives)]
    masks = []
    for chosen in (positives, negatives):
        mask = torch.zeros(len(keys), dtype=torch.bool)
        mask[chosen] = True
        masks.append(mask)
    return masks[0], masks[1]


def suppress(candidates: list[dict], threshold: float) -> list[dict]:
    """Greedy suppression by descending score within each group; the first of equals is kept."""
    kept: list[dict] = []
    for candidate in sorted(candidates, key=lambda one: -one["score"]):
        if all(
            other["group"] != candidate["group"] or iou(other["box"], candidate["box"]) <= threshold
            for other in kept
        ):
            kept.append(candidate)
    return kept


def _large(box: list[float], min_size: float) -> bool:
    return box[2] - box[0] >= min_size and box[3] - box[1] >= min_size


def proposals(
    objectness: Tensor,
    deltas: Tensor,
    anchor_boxes: Tensor,
    level_sizes: list[int],
    image: tuple[int, int],
    pre: int,
    post: int,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    decoded = decode(deltas, anchor_boxes, [1.0] * 4, math.log(1000 / 16)).tolist()
    logits = objectness.double().tolist()
    candidates, start = [], 0
    for level, count in enumerate(level_sizes):
        rows = [i for i in range(start, start + count) if not math.isnan(logits[i])]
        for i in sorted(rows, key=lambda i: -logits[i])[:pre]:
            box = clip(decoded[i], *image)
            if _large(box, 1e-3):
                score = 1 / (1 + math.exp(-logits[i]))
                candidates.append({"box": box, "score": score, "group": level})
        start += count
    kept = suppress(candidates, threshold)[:post]
    return (
        torch.tensor([one["box"] for one in kept], dtype=torch.float64).reshape(-1, 4),
        torch.tensor([one["score"] for one in kept], dtype=torch.float64),
    )


def detections(
    scores: Tensor,
    boxes: Tensor,
    image: tuple[int, int],
    score_threshold: float,
    threshold: float,
    most: int,
) -> tuple[Tensor, Tensor, Tensor]:
    candidates = []
    for row, corners in zip(scores.double().tolist(), boxes.double().tolist(), strict=True):
        for label in range(1, len(row)):
            box = clip(corners[4 * label : 4 * label + 4], *image)
            if row[label] > score_threshold and _large(box, 1e-2):
                candidates.append({"box": box, "score": row[label], "group": label})
    kept = suppress(candidates, threshold)[:most]
    return (
        torch.tensor([one["box"] for one in kept], dtype=torch.float64).reshape(-1, 4),
        torch.tensor([one["score"] for one in kept], dtype=torch.float64),
        torch.tensor([one["group"] for one in kept], dtype=torch.int64),
    )
