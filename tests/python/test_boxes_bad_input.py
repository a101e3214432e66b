"""The box operators and the steps of a detector on wrong input: the message for each."""

import pytest
import torch

ops = torch.ops.tilewright


def bad_calls():
    b, f = torch.rand(3, 4), torch.rand(1, 8, 4, 4)
    long = torch.ones(3, dtype=torch.int64)
    image = torch.rand(3, 8, 8)
    inverted = torch.tensor([[0.0, 0, 4, 4], [5, 1, 5, 3]])
    mean = [0.5] * 3
    return [
        ("box_area", (torch.rand(3, 5),), "boxes must have shape (..., 4), got (3, 5)"),
        ("box_area", (torch.ones(3, 4).bool(),), "boxes must be floating or integer, got Bool"),
        ("box_iou", (b, torch.rand(4)), "boxes2 must have shape (..., N, 4), got (4,)"),
        (
            "generalized_box_iou",
            (torch.rand(2, 3), b),
            "boxes1 must have shape (..., N, 4), got (2, 3)",
        ),
        ("clip_boxes", (b, -1, 5), "height and width must not be negative, got -1 and 5"),
        ("clip_boxes", (torch.rand(2), 1, 5), "boxes must have shape (..., 4), got (2,)"),
        ("resize_boxes", (b, [0, 5], [5, 5]), "sizes must be positive, got [0, 5] and [5, 5]"),
        ("boxes_to_rois", ([],), "boxes must hold one tensor per image, got an empty list"),
        ("boxes_to_rois", ([b, b[0]],), "boxes[1] must have shape (N, 4), got (4,)"),
        ("encode_boxes", (b, b[:2], [1.0] * 4), "as many rows, got (3, 4) and (2, 4)"),
        ("encode_boxes", (b, b, [1.0] * 3), "weights must be four numbers, got 3"),
        ("encode_boxes", (b, b, [1.0, 0.0, 1.0, 1.0]), "weights must be positive"),
        ("decode_boxes", (torch.rand(3, 6), b, [1.0] * 4), "(N, 4 * num_classes), got (3, 6)"),
        ("decode_boxes", (b.long(), b, [1.0] * 4), "deltas must be float64, float32"),
        ("grid_anchors", ([], [1.0], [1.0], 8, 8), "features must hold one map per level"),
        ("grid_anchors", ([f, f], [1.0], [1.0, 1.0], 8, 8), "sizes must hold the same count"),
        (
            "grid_anchors",
            ([f], [1.0], [-1.0], 8, 8),
            "aspect_ratios must be positive and",
        ),
        ("grid_anchors", ([f], [1.0], [1.0], 3, 8), "features[0] must be no larger than the image"),
        ("flatten_predictions", ([f], 3), "levels[0] must have shape (B, A * 3, H, W)"),
        ("match_boxes", (torch.rand(3), 0.7, 0.3), "iou must have shape (G, M), got (3,)"),
        ("match_boxes", (b, 0.3, 0.7), "low_threshold must not exceed high_threshold, got 0.7"),
        ("assign_targets", (b, long[:2], b, 0.5, 0.5), "gt_labels must have shape (G,)"),
        ("assign_targets", (b, long.int(), b, 0.5, 0.5), "gt_labels must be int64, got Int"),
        ("sample_balanced", (long.int(), torch.rand(3), 2, 0.5), "labels must be int64, got Int"),
        ("sample_balanced", (long, torch.rand(2), 2, 0.5), "noise must have the shape of labels"),
        ("sample_balanced", (long, torch.rand(3), 2, 1.5), "positive_fraction must lie in [0, 1]"),
        ("generate_proposals", (b[:2, 0], b, b, [3], 5, 5), "as many rows, got (2,), (3, 4)"),
        ("generate_proposals", (b[:, 0], b, b, [2], 5, 5), "must add up to the 3 anchors"),
        ("generate_proposals", (b, b, b, [3], 5, 5), "objectness must have shape (A,), got (3, 4)"),
        ("postprocess_detections", (b[:, :1], b, 5, 5), "(P, C) with C >= 2 classes"),
        ("postprocess_detections", (b[:, :2], b, 5, 5), "boxes must have shape (P, 4 * C)"),
        ("resize_images", ([image, image[0]], mean, mean, 8, 8), "images[1] must have shape (3, H"),
        ("resize_images", ([image.byte()], mean, mean, 8, 8), "images[0] must be float64"),
        ("resize_images", ([image], mean, mean[:2], 8, 8), "one number per channel, got 3 and 2"),
        ("pad_images", ([], 32), "images must hold at least one image, got an empty list"),
        (
            "prepare_targets",
            ([inverted], [long[:2]], [image], [image], 3),
            "boxes[0] must hold finite boxes with x2 > x1 and y2 > y1, got box 1: (5, 1, 5, 3)",
        ),
        (
            "prepare_targets",
            ([inverted[:1]], [long[:1] * 3], [image], [image], 3),
            "labels[0] must lie in [1, 3) (0 is the background), got 3 for box 0",
        ),
        (
            "prepare_targets",
            ([inverted[:1]], [long[:2]], [image], [image], 3),
            "labels[0] must have shape (G,) for boxes[0] (G, 4), got (2,) for (1, 4)",
        ),
    ]


@pytest.mark.parametrize(("name", "arguments", "message"), bad_calls())
def test_wrong_inputs_are_named(name, arguments, message):
    with pytest.raises(RuntimeError) as error:
        getattr(ops, name)(*arguments)
    text = str(error.value)
    assert f"tilewright::{name}: " in text
    assert message in text
