"""Non-maximum suppression: argument sugar over ``torch.ops.tilewright``, and shape functions for
results whose sizes depend on data.

The functions that torchvision.ops has take its arguments. All of them can be used inside
``torch.jit.script``, ``torch.compile`` and ``torch.export``; the rules for NaN, infinite and
degenerate boxes are in docs/detection.md.
"""

from typing import Tuple  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor

from tilewright import _C

__all__ = [
    "batched_nms",
    "batched_nms_rotated",
    "box_iou_rotated",
    "nms",
    "nms_rotated",
    "soft_nms",
]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int = -1) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) of x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: a box is dropped if its intersection over union with a kept box of higher
            score is greater.
        max_output: stop after so many boxes; -1: all.

    Returns:
        (M,) int64: indices of the kept boxes by descending score. Boxes with NaN or infinite
        coordinates, or a NaN score, are dropped.
    """
    return torch.ops.tilewright.nms(boxes, scores, iou_threshold, max_output)


def batched_nms(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, max_output: int = -1
) -> Tensor:
    """:func:`nms` within each class: ``idxs`` (N,), integer, is the class of each box."""
    return torch.ops.tilewright.batched_nms(boxes, scores, idxs, iou_threshold, max_output)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 0.001,
    method: str = "gaussian",
) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Soft-NMS (Bodla et al. 2017, arXiv:1704.04503): overlapping boxes lose score.

    The box of the highest score is taken, and the scores of all that remain are multiplied by a
    factor of their intersection over union with it; and so on while the highest score is at least
    ``min_score``.

    Args:
        boxes: (N, 4) of x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: overlaps up to it cost nothing (not for "gaussian").
        sigma: how steeply "gaussian" falls.
        min_score: boxes of lower score are dropped.
        method: "gaussian": exp(-iou^2 / sigma); "linear": 1 - iou; "hard": 0, which is nms.

    Returns:
        (M,) int64: indices of the taken boxes in the order of their taking, and (M,): their scores
        by then, which are differentiable in scores and boxes, once.
    """
    return torch.ops.tilewright.soft_nms(boxes, scores, iou_threshold, sigma, min_score, method)


def nms_rotated(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int = -1
) -> Tensor:
    """:func:`nms` of rotated boxes.

    Args:
        boxes: (N, 5) of cx, cy, w, h, angle; the angle in radians, counter-clockwise as seen on the
            screen. Detectron2's boxes have theirs in degrees, with the same sign: convert them by
            ``torch.deg2rad(boxes[:, 4])``. mmcv's are clockwise by default: negate theirs.
        scores: (N,).
        iou_threshold: as for :func:`nms`; overlaps are those of the rotated boxes.
        max_output: stop after so many boxes; -1: all.

    Returns:
        (M,) int64: indices of the kept boxes by descending score.
    """
    return torch.ops.tilewright.nms_rotated(boxes, scores, iou_threshold, max_output)


def batched_nms_rotated(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, max_output: int = -1
) -> Tensor:
    """:func:`nms_rotated` within each class: ``idxs`` (N,), integer, is the class of each box."""
    return torch.ops.tilewright.batched_nms_rotated(boxes, scores, idxs, iou_threshold, max_output)


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair of rotated boxes.

    Args:
        boxes1: (..., N, 5) of cx, cy, w, h, angle, as for :func:`nms_rotated`.
        boxes2: (..., M, 5).

    Returns:
        (..., N, M), float32 (float64 for float64), differentiable in both.
    """
    return torch.ops.tilewright.box_iou_rotated(boxes1, boxes2)


def _fake_kept(boxes: Tensor) -> Tensor:
    """As many indices as the data will decide."""
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _register_nms_fakes(suffix: str, columns: int) -> None:
    @torch.library.register_fake(f"tilewright::nms{suffix}")
    def _(boxes, scores, iou_threshold, max_output=-1):
        name = f"nms{suffix}"
        _C.check_nms(name, boxes, scores, None, iou_threshold, max_output, columns)
        return _fake_kept(boxes)

    @torch.library.register_fake(f"tilewright::batched_nms{suffix}")
    def _(boxes, scores, idxs, iou_threshold, max_output=-1):
        name = f"batched_nms{suffix}"
        _C.check_nms(name, boxes, scores, idxs, iou_threshold, max_output, columns)
        return _fake_kept(boxes)


_register_nms_fakes("", 4)
_register_nms_fakes("_rotated", 5)


@torch.library.register_fake("tilewright::soft_nms")
def _(boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=0.001, method="gaussian"):
    _C.check_soft_nms(boxes, scores, iou_threshold, sigma, min_score, method)
    keep = _fake_kept(boxes)
    return keep, scores.new_empty(keep.shape)
