"""Arguments that a detector's steps and options refuse, each by its own name."""

import pytest
import torch
from torch.autograd import forward_ad

import tilewright
from tilewright.models import FasterRCNN, FasterRCNNCpp

BOX = torch.tensor([[1.0, 1, 20, 20]])
MAPS = [torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)]
SMALL = {"min_size": 64, "max_size": 96, "fpn_channels": 16, "representation_size": 16}


@pytest.mark.parametrize("detector", [FasterRCNN, FasterRCNNCpp])
@pytest.mark.parametrize(
    "option,value,message",
    [
        ("batch_norm_eps", -1.0, "batch_norm_eps must not be negative, and finite, got -1"),
        ("batch_norm_eps", torch.nan, "batch_norm_eps must not be negative, and finite, got nan"),
        ("representation_size", 0, "representation_size must be positive, got 0"),
        ("fpn_channels", -3, "fpn_channels must be positive, got -3"),
        ("aspect_ratios", (), "aspect_ratios must not be empty"),
        ("aspect_ratios", (1.0, 0.0), "aspect_ratios must hold positive numbers"),
        ("anchor_sizes", ((32,), (64,), (128,), (256,), (-1,)), "anchor_sizes must hold positive"),
        ("image_std", (0, 1, 1), r"image_std must hold positive .*, got \[0, 1, 1\]"),
        ("image_mean", (0.5,), "image_mean and image_std must hold a number for each channel"),
        ("min_size", 0, "min_size must be positive, got 0"),
        ("box_nms_thresh", 2.0, r"box_nms_thresh must lie in \[0, 1\], got 2"),
        ("rpn_fg_iou_thresh", 0.2, "rpn_bg_iou_thresh and rpn_fg_iou_thresh .* got 0.3 and 0.2"),
        ("rpn_positive_fraction", 1.5, r"rpn_positive_fraction must lie in \[0, 1\], got 1.5"),
        ("box_detections_per_img", 0, "box_detections_per_img must be positive, got 0"),
        ("box_score_thresh", torch.nan, "box_score_thresh must be a number"),
        ("bbox_reg_weights", (1.0, 1.0), "bbox_reg_weights must be four numbers, got 2"),
        ("rpn_post_nms_top_n_test", 0, "rpn_post_nms_top_n_test must be positive, got 0"),
        ("min_size", "large", "min_size must be an integer, got 'large'"),
    ],
)
def test_options(detector, option, value, message):
    with pytest.raises((RuntimeError, TypeError), match=f"FasterRCNN: {message}"):
        detector(3, **{option: value})


@pytest.mark.parametrize("detector", [FasterRCNN, FasterRCNNCpp])
def test_targets_may_hold_more(detector):
    model = detector(3, **SMALL).train()
    target = {"boxes": BOX, "labels": torch.tensor([1]), "name": "a.jpg", "image_id": 7}
    losses, _ = model([torch.rand(3, 64, 64)], [target])
    assert all(loss.isfinite() for loss in losses.values())


def test_targets_of_no_tensors():
    model = FasterRCNNCpp(3, **SMALL).train()
    with pytest.raises(TypeError, match=r"targets\[0\]\[boxes\] must be a tensor, got .*list"):
        model([torch.rand(3, 64, 64)], [{"boxes": [1], "labels": torch.tensor([1])}])


def test_named_parameters_are_pairs():
    model = FasterRCNNCpp(3, **SMALL)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names == list(dict(FasterRCNN(3, **SMALL).named_parameters()))


@pytest.mark.parametrize(
    "maps,sizes,ratios,message",
    [
        (
            MAPS,
            [[32.0, 64.0, 96.0], [128.0]],
            [[1.0], [1.0]],
            "sizes must have as many .* 1 beside 3",
        ),
        (MAPS, [[32.0], [64.0]], [[1.0, 2.0], []], "aspect_ratios must have as many .* 0 beside 2"),
        (MAPS[:1], [[32.0], [64.0]], [[1.0]], "each of the 1 levels, got 2 and 1"),
    ],
)
def test_anchors_of_every_level(maps, sizes, ratios, message):
    with pytest.raises(ValueError, match=f"grid_anchors: .*{message}"):
        tilewright.grid_anchors(maps, sizes, ratios, (64, 64))


def test_level_sizes():
    numbers = torch.rand(10), torch.rand(10, 4), torch.rand(10, 4)
    with pytest.raises(RuntimeError, match="level_sizes must not be negative, got -2"):
        tilewright.generate_proposals(*numbers, [12, -2], (64, 64))


@pytest.mark.parametrize("function", [tilewright.box_iou, tilewright.generalized_box_iou])
def test_leading_dimensions(function):
    assert function(torch.rand(1, 2, 4), torch.rand(5, 3, 4)).shape == (5, 2, 3)
    with pytest.raises(RuntimeError, match=r"must broadcast, got \(3, 2, 4\) and \(2, 2, 4\)"):
        function(torch.rand(3, 2, 4), torch.rand(2, 2, 4))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_generalized_iou_of_boxes_that_are_not_finite(value):
    odd = BOX.clone()
    odd[0, 2] = value
    boxes1 = torch.cat([BOX, odd]).requires_grad_()
    boxes2 = torch.tensor([[8.0, 8, 200, 120], [0, 0, 50, 50]])
    overlaps = tilewright.generalized_box_iou(boxes1, boxes2)
    assert torch.equal(overlaps[1], torch.zeros(2)) and (overlaps[0] != 0).all()
    assert torch.equal(tilewright.generalized_box_iou(boxes2, boxes1), overlaps.T)
    overlaps.sum().backward()
    assert torch.equal(boxes1.grad[1], torch.zeros(4)) and (boxes1.grad[0] != 0).any()


@pytest.mark.parametrize("size", [(7,), (7, 7, 7)])
def test_output_size(size):
    with pytest.raises(ValueError, match=r"output_size must be an int or \(height, width\), got"):
        tilewright.roi_align(MAPS[0], [BOX], size)


def test_lists_of_boxes_have_one_dtype():
    with pytest.raises(
        RuntimeError, match=r"boxes\[1\] must have the dtype of boxes\[0\] \(Float\)"
    ):
        tilewright.roi_align(torch.zeros(2, 1, 4, 4), [BOX, BOX.double()], 2)


def test_many_images_of_16_bits():
    # bfloat16 holds no 257: the index has to be made in another dtype.
    count = 300
    x = (torch.arange(count) % 2).to(torch.bfloat16).view(count, 1, 1, 1).expand(count, 1, 2, 2)
    boxes = [torch.tensor([[0.0, 0, 2, 2]], dtype=torch.bfloat16)] * count
    pooled = tilewright.roi_align(x, boxes, 1)
    assert torch.equal(pooled.flatten(), (torch.arange(count) % 2).to(torch.bfloat16))


@pytest.mark.parametrize("detector", [FasterRCNN, FasterRCNNCpp])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_losses_have_the_models_dtype(detector, dtype):
    model = detector(3, **SMALL).train()
    target = {"boxes": BOX.to(dtype), "labels": torch.tensor([1])}
    losses, _ = model([torch.rand(3, 64, 64)], [target])
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


FAR = [
    [[0.0, 0, 1, 1], [1e30, 1e30, 1.1e30, 1.1e30]],
    [[0.0, 0, 1, 1], [3e19, 3e19, 3e19, 3.0000005e19]],
    [[-3e38, 0, 3e38, 10], [0.0, 0, 10, 10]],
]


@pytest.mark.parametrize("pair", FAR)
@pytest.mark.parametrize("function", [tilewright.box_iou, tilewright.generalized_box_iou])
def test_overlaps_of_boxes_whose_areas_overflow(function, pair):
    boxes = torch.tensor(pair).requires_grad_()
    overlaps = function(boxes[:1], boxes[1:])
    overlaps.sum().backward()
    assert torch.equal(overlaps, torch.zeros(1, 1)) and torch.equal(boxes.grad, torch.zeros(2, 4))


def test_deltas_of_boxes_whose_sides_overflow():
    boxes = torch.tensor(FAR[2])
    weights = [1.0, 1.0, 1.0, 1.0]
    assert torch.equal(tilewright.encode_boxes(boxes[:1], boxes[1:], weights), torch.zeros(1, 4))


@pytest.mark.parametrize("pair", [[1e308, 1e308], [1e200, 1e150]])
def test_rotated_overlaps_of_boxes_whose_areas_overflow(pair):
    boxes = torch.tensor([[0, 0, side, 1, 0.3] for side in pair], dtype=torch.float64)
    boxes.requires_grad_()
    overlaps = tilewright.box_iou_rotated(boxes[:1], boxes[1:])
    overlaps.sum().backward()
    assert torch.equal(overlaps, torch.zeros(1, 1, dtype=torch.float64))
    assert torch.equal(boxes.grad, torch.zeros(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("value", [torch.inf, 1e39, 1e-60])
def test_anchors_that_float32_does_not_hold(value):
    with pytest.raises(RuntimeError, match="sizes must be positive and finite in float32"):
        tilewright.grid_anchors(MAPS[:1], [[value]], [[1.0]], (64, 64))
    with pytest.raises(RuntimeError, match="anchor_sizes must hold positive numbers"):
        FasterRCNN(3, anchor_sizes=((value,),) * 5)


def test_transforms_of_functions_say_what_they_lack():
    rois = torch.tensor([[0.0, 0, 0, 4, 4]])

    def total(x):
        return tilewright.roi_align(x, rois, 2).sum()

    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(total)(x)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="jvp is not implemented"):
        total(forward_ad.make_dual(x, x))
