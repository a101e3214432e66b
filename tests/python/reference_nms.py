"""Slow, obvious references for the kinds of NMS, in fp64, one pair at a time."""

import torch


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


def soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=0.001, method="gaussian"):
    """Returns (keep, scores), the scores differentiable in both arguments."""
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
            factor = decay(overlap(boxes[i], boxes[best]), method, iou_threshold, sigma)
            play[i] = play[i] if factor is None else play[i] * factor
            if factor is None or not play[i] >= min_score:
                del play[i]
    return (
        torch.tensor(keep, dtype=torch.int64),
        torch.stack(kept_scores) if keep else torch.zeros(0, dtype=torch.float64),
    )
