"""Slow, obvious references for the kinds of NMS, in fp64, one pair at a time."""

import math

import torch

METHODS = ["gaussian", "linear", "hard"]


def overlap(a, b):
    """Intersection over union of two (4,) boxes, differentiable; 0 where they do not meet."""
    width = torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])
    height = torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])
    if not (width > 0 and height > 0):
        return torch.zeros((), dtype=a.dtype)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


def decay(value, method, iou_threshold, sigma):
    """The factor of an overlap; None where the box goes."""
    if method == "gaussian":
        return torch.exp(-(value**2) / sigma)
    if value <= iou_threshold:
        return torch.ones((), dtype=value.dtype)
    return 1 - value if method == "linear" else None


def soft_nms(
    boxes,
    scores,
    iou_threshold=0.3,
    sigma=0.5,
    min_score=0.001,
    method="gaussian",
    margins=None,
):
    """Returns (keep, scores), the scores differentiable in both arguments.

    The list `margins` is given how far each decision was from going the other way: by how much of
    itself the best score exceeds another one, or by how much a number misses its threshold.
    """
    margins = [] if margins is None else margins
    boxes, scores = boxes.double(), scores.double()
    play = {
        i: scores[i]
        for i in range(len(scores))
        if boxes[i].isfinite().all() and scores[i] >= min_score
    }
    keep, kept_scores = [], []
    while play:
        best = max(play, key=lambda i: (play[i].item(), -i))
        keep.append(best)
        kept_scores.append(play.pop(best))
        for i in list(play):
            margins.append(1 - (play[i] / kept_scores[-1]).item())
            value = overlap(boxes[i], boxes[best])
            factor = decay(value, method, iou_threshold, sigma)
            if method != "gaussian":
                margins.append(abs(value.item() - iou_threshold))
            play[i] = play[i] if factor is None else play[i] * factor
            margins.append(abs(play[i].item() - min_score))
            if factor is None or not play[i] >= min_score:
                del play[i]
    return (
        torch.tensor(keep, dtype=torch.int64),
        torch.stack(kept_scores) if keep else torch.zeros(0, dtype=torch.float64),
    )


def rotated_corners(box):
    """The corners of (cx, cy, w, h, angle), counter-clockwise on the screen for positive sides."""
    cx, cy, w, h, angle = box
    c, s = math.cos(angle), math.sin(angle)
    offsets = [(-w / 2, -h / 2), (-w / 2, h / 2), (w / 2, h / 2), (w / 2, -h / 2)]
    return [(cx + dx * c + dy * s, cy - dx * s + dy * c) for dx, dy in offsets]


def clip(polygon, a, b):
    """The part of a convex polygon to the left of the line from a to b (Sutherland and Hodgman)."""

    def side(p):
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    kept = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if side(p) <= 0:
            kept.append(p)
        if side(p) * side(q) < 0:
            t = side(p) / (side(p) - side(q))
            kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return kept


def area(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(p[0] * q[1] - p[1] * q[0] for p, q in pairs)) / 2


def rotated_overlap(a, b):
    """Intersection over union of two (cx, cy, w, h, angle) lists."""
    if not all(map(math.isfinite, [*a, *b])) or min(a[2], a[3], b[2], b[3]) <= 0:
        return 0.0
    shift = [a[0], a[1], 0, 0, 0]  # relative to a, where numbers have their digits
    a, b = ([x - y for x, y in zip(box, shift, strict=True)] for box in (a, b))
    polygon, corners = rotated_corners(a), rotated_corners(b)
    for p, q in zip(corners, corners[1:] + corners[:1], strict=True):
        polygon = clip(polygon, p, q) if polygon else polygon
    shared = area(polygon) if len(polygon) > 2 else 0.0
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def nms_rotated(boxes, scores, iou_threshold, max_output=-1, idxs=None):
    """Greedy, one pair at a time."""
    rows, values = boxes.double().tolist(), scores.double().tolist()
    groups = [0] * len(rows) if idxs is None else idxs.tolist()
    usable = [
        i
        for i in range(len(rows))
        if all(map(math.isfinite, rows[i])) and not math.isnan(values[i])
    ]
    kept = []
    for i in sorted(usable, key=lambda i: -values[i]):
        if all(
            groups[i] != groups[k] or rotated_overlap(rows[k], rows[i]) <= iou_threshold
            for k in kept
        ):
            kept.append(i)
    return torch.tensor(kept if max_output < 0 else kept[:max_output], dtype=torch.int64)
