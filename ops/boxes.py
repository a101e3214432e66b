"""Box geometry and the box steps of a detector: argument sugar over ``torch.ops.tilewright``.

Boxes are (x1, y1, x2, y2) in pixels. The rules (shapes, dtypes, what happens to degenerate and NaN
boxes) stand beside the declarations in ``tilewright/detection/*.h`` and are repeated here in short.
Every function can be used inside ``torch.jit.script``, ``torch.compile`` and ``torch.export``.
"""

import torch
from torch import Tensor

__all__ = [
    "assign_targets",
    "box_area",
    "box_iou",
    "boxes_to_rois",
    "clip_boxes_to_image",
    "decode_boxes",
    "encode_boxes",
    "generalized_box_iou",
    "generate_proposals",
    "grid_anchors",
    "match_boxes",
    "postprocess_detections",
    "resize_boxes",
    "sample_balanced",
]


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box: (..., 4) -> (...)."""
    return torch.ops.tilewright.box_area(boxes)


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair: (..., N, 4), (..., M, 4) -> (..., N, M).

    Pairs without area, and boxes with NaN or infinite coordinates, give 0.
    """
    return torch.ops.tilewright.box_iou(boxes1, boxes2)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalized IoU of every pair (arXiv:1902.09630): (..., N, 4), (..., M, 4) -> (..., N, M)."""
    return torch.ops.tilewright.generalized_box_iou(boxes1, boxes2)


def clip_boxes_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) moved into an image of ``size`` (height, width)."""
    return torch.ops.tilewright.clip_boxes(boxes, size[0], size[1])


def resize_boxes(
    boxes: Tensor,
    original_size: tuple[int, int],
    new_size: tuple[int, int],
) -> Tensor:
    """Boxes (..., 4) of an image that was resized; sizes are (height, width)."""
    return torch.ops.tilewright.resize_boxes(boxes, original_size, new_size)


def boxes_to_rois(boxes: list[Tensor]) -> Tensor:
    """One (n_i, 4) tensor per image -> (sum n_i, 5) with the image's index in front."""
    return torch.ops.tilewright.boxes_to_rois(boxes)


def encode_boxes(
    reference: Tensor,
    proposals: Tensor,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """The deltas (N, 4) that carry ``proposals`` (N, 4) to ``reference`` (N, 4)."""
    return torch.ops.tilewright.encode_boxes(reference, proposals, weights)


def decode_boxes(
    deltas: Tensor,
    boxes: Tensor,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    clip: float = 4.135166556742356,
) -> Tensor:
    """Deltas (N, 4 * K) applied to boxes (N, 4); log sizes are limited to ``clip`` from above."""
    return torch.ops.tilewright.decode_boxes(deltas, boxes, weights, clip)


def grid_anchors(
    features: list[Tensor],
    sizes: list[list[float]],
    aspect_ratios: list[list[float]],
    image_size: tuple[int, int],
) -> Tensor:
    """Anchors of all levels, (sum of H * W * A, 4), for a batch of padded ``image_size``.

    Args:
        features: one map (..., H, W) per level; only shapes, device and dtype are used.
        sizes: for each level its side lengths in pixels.
        aspect_ratios: for each level its ratios height / width.
        image_size: (height, width) of the batch that the features come from.
    """
    if len(sizes) != len(features) or len(aspect_ratios) != len(features):
        raise ValueError(
            "tilewright::grid_anchors: sizes and aspect_ratios must have one list for each of the "
            f"{len(features)} levels, got {len(sizes)} and {len(aspect_ratios)}"
        )
    flat_sizes: list[float] = []
    for level_sizes in sizes:
        if len(level_sizes) != len(sizes[0]):
            raise ValueError(
                "tilewright::grid_anchors: sizes must have as many numbers at each level, got "
                f"{len(level_sizes)} beside {len(sizes[0])}"
            )
        flat_sizes.extend([float(size) for size in level_sizes])
    flat_ratios: list[float] = []
    for level_ratios in aspect_ratios:
        if len(level_ratios) != len(aspect_ratios[0]):
            raise ValueError(
                "tilewright::grid_anchors: aspect_ratios must have as many numbers at each level, "
                f"got {len(level_ratios)} beside {len(aspect_ratios[0])}"
            )
        flat_ratios.extend([float(ratio) for ratio in level_ratios])
    return torch.ops.tilewright.grid_anchors(
        features, flat_sizes, flat_ratios, image_size[0], image_size[1]
    )


def match_boxes(
    iou: Tensor, high_threshold: float, low_threshold: float, allow_low_quality: bool = False
) -> Tensor:
    """For each column of ``iou`` (G, M): the row matched, -1 for background, -2 for neither."""
    return torch.ops.tilewright.match_boxes(iou, high_threshold, low_threshold, allow_low_quality)


def assign_targets(
    gt_boxes: Tensor,
    gt_labels: Tensor,
    boxes: Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality: bool = False,
) -> tuple[Tensor, Tensor]:
    """Labels (M,) (0 background, -1 ignored) and matched boxes (M, 4) for ``boxes`` (M, 4)."""
    return torch.ops.tilewright.assign_targets(
        gt_boxes, gt_labels, boxes, high_threshold, low_threshold, allow_low_quality
    )


def sample_balanced(
    labels: Tensor,
    size: int,
    positive_fraction: float,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Masks (M,) of sampled positives (label >= 1) and negatives (label 0), ``size`` in all.

    Args:
        labels: (M,) int64; values below 0 are never sampled.
        size: how many to sample at most.
        positive_fraction: at most this share of ``size`` is positive.
        noise: (M,) uniform keys; the smallest are taken. Drawn from ``generator`` if not given.
        generator: of the device of ``labels``; not available inside ``torch.jit.script``.
    """
    if noise is None:
        if torch.jit.is_scripting():
            noise = torch.rand(labels.shape, dtype=torch.float32, device=labels.device)
        else:
            noise = torch.rand(
                labels.shape, dtype=torch.float32, device=labels.device, generator=generator
            )
    return torch.ops.tilewright.sample_balanced(labels, noise, size, positive_fraction)


def generate_proposals(
    objectness: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    level_sizes: list[int],
    image_size: tuple[int, int],
    pre_nms_top_n: int = 1000,
    post_nms_top_n: int = 1000,
    nms_threshold: float = 0.7,
    score_threshold: float = 0.0,
    min_size: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Proposals of one image: boxes (P, 4) and scores (P,), best first, without gradient.

    Args:
        objectness: (A,) logits, in the order of :func:`grid_anchors`.
        deltas: (A, 4).
        anchors: (A, 4).
        level_sizes: how many anchors each level has.
        image_size: (height, width) to which boxes are clipped.
        pre_nms_top_n: kept per level before non-maximum suppression.
        post_nms_top_n: kept after it.
        nms_threshold: boxes of a level that overlap a better one by more are dropped.
        score_threshold: lowest score kept.
        min_size: shortest side kept, in pixels.
    """
    return torch.ops.tilewright.generate_proposals(
        objectness,
        deltas,
        anchors,
        level_sizes,
        image_size[0],
        image_size[1],
        pre_nms_top_n,
        post_nms_top_n,
        nms_threshold,
        score_threshold,
        min_size,
    )


def postprocess_detections(
    scores: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    max_detections: int = 100,
    min_size: float = 1e-2,
) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of one image: boxes (D, 4), scores (D,), labels (D,), best first.

    Args:
        scores: (P, C) class probabilities, class 0 being the background.
        boxes: (P, 4 * C), four coordinates per class.
        image_size: (height, width) to which boxes are clipped.
        score_threshold: only scores above it are kept.
        nms_threshold: boxes of a class that overlap a better one by more are dropped.
        max_detections: at most this many are kept.
        min_size: shortest side kept, in pixels.
    """
    return torch.ops.tilewright.postprocess_detections(
        scores,
        boxes,
        image_size[0],
        image_size[1],
        score_threshold,
        nms_threshold,
        max_detections,
        min_size,
    )
