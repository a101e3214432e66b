"""soft_nms on odd data: the rule or the message for each."""

import math

import pytest
import torch
from reference_nms import METHODS
from samples import crowd
from torch._subclasses import FakeTensorMode

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


@kernels
@pytest.mark.parametrize("method", METHODS)
def test_boxes_that_are_no_boxes(device, method):
    nan, inf = math.nan, math.inf
    boxes = torch.tensor(
        [
            [0, 0, 10.0, 10],
            [nan, 0, 10, 10],
            [0, 0, inf, 10],
            [5, 5, 5, 5],  # pairs without area overlap nothing
            [5, 5, 5, 5],
            [10, 10, 0, 0],  # inverted: meets nothing
            [20, 0, 30, 9],
            [0, 0, 10, 9.8],
            [40, 0, 50, 9],
        ]
    )
    scores = torch.tensor([0.9, 1, 1, 0.8, 0.7, 0.6, nan, 0.5, -0.5])
    keep, out = tilewright.soft_nms(boxes.to(device), scores.to(device), 0.3, 0.5, 0.0, method)
    # 1 and 2 would come first and lower the rest; 6 has no score, that of 8 is too low.
    assert keep.tolist() == [0, 3, 4, 5] + ([] if method == "hard" else [7])
    assert torch.equal(out.cpu()[:4], scores[[0, 3, 4, 5]])


@kernels
def test_scores_of_zero_and_infinity(device):
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6], [5, 5, 6, 6]]).to(device)
    scores = torch.tensor([0.0, math.inf, math.inf]).to(device)
    # Equal boxes: inf * 0 is no score.
    keep, out = tilewright.soft_nms(boxes, scores, min_score=0.0, method="linear")
    assert keep.tolist() == [1, 0] and out.tolist() == [math.inf, 0.0]
    keep, out = tilewright.soft_nms(boxes, scores, min_score=0.0, method="gaussian")
    assert keep.tolist() == [1, 2, 0] and out.tolist() == [math.inf, math.inf, 0.0]


@kernels
@pytest.mark.parametrize("method", METHODS)
def test_areas_that_overflow_do_not_overlap(device, method):
    """As in nms: the scores stay as they are, and so do the gradients."""
    boxes = torch.tensor([[0.0, 0, 4e19, 4e19], [0, 0, 4e19, 4e19]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    boxes.requires_grad_()
    keep, out = tilewright.soft_nms(boxes, scores, method=method)
    assert keep.tolist() == [0, 1] and torch.equal(out, scores)
    if out.requires_grad:
        assert not torch.autograd.grad(out.sum(), boxes)[0].any()


@kernels
@pytest.mark.no_launch
def test_empty(device):
    boxes = torch.zeros(0, 4, device=device, requires_grad=True)
    scores = torch.zeros(0, device=device, requires_grad=True)
    keep, out = tilewright.soft_nms(boxes, scores)
    assert keep.shape == (0,) and out.shape == (0,)
    out.sum().backward()
    assert boxes.grad.shape == (0, 4) and scores.grad.shape == (0,)


@kernels
def test_nothing_is_good_enough(device):
    boxes, scores = crowd(20)
    boxes, scores = boxes.to(device).requires_grad_(), scores.to(device).requires_grad_()
    keep, out = tilewright.soft_nms(boxes, scores, min_score=2.0)
    assert keep.shape == (0,) and out.shape == (0,)
    out.sum().backward()
    assert not boxes.grad.any() and not scores.grad.any()


BOXES, SCORES = torch.zeros(3, 4), torch.zeros(3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"boxes": torch.zeros(3, 5)}, r"boxes must have shape \(N, 4\), got \(3, 5\)"),
        ({"boxes": BOXES.long()}, "boxes must be float64, float32, float16 or bfloat16, got Long"),
        ({"scores": torch.zeros(3, 1)}, r"scores must have shape \(N,\), got \(3, 1\)"),
        ({"scores": torch.zeros(2)}, r"expected one score per box \(3\), got 2"),
        ({"iou_threshold": -0.1}, r"iou_threshold must lie in \[0, 1\], got -0.1"),
        ({"iou_threshold": math.nan}, r"iou_threshold must lie in \[0, 1\], got nan"),
        ({"sigma": 0.0}, "sigma must be positive and finite, got 0"),
        ({"sigma": math.nan}, "sigma must be positive and finite, got nan"),
        ({"min_score": -1.0}, "min_score must be finite and not negative, got -1"),
        ({"min_score": math.nan}, "min_score must be finite and not negative, got nan"),
        ({"method": "soft"}, "method must be gaussian, linear or hard, got soft"),
    ],
)
def test_wrong_input(change, message):
    args = {"boxes": BOXES, "scores": SCORES} | change
    with pytest.raises(RuntimeError, match=f"tilewright::soft_nms: {message}"):
        ops.soft_nms(**args)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match=message):
        ops.soft_nms(**args)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"grad": torch.ones(1)}, r"grad must have the shape of keep, \(2,\), got \(1,\)"),
        ({"grad": torch.ones(2, dtype=torch.int64)}, "grad must be float64, float32"),
        ({"keep": torch.zeros(2)}, "keep must be int64, got Float"),
        ({"keep": torch.zeros(1, 2).long()}, r"keep must have shape \(M,\), got \(1, 2\)"),
    ],
)
def test_wrong_input_of_the_backward(change, message):
    args = {"grad": torch.ones(2), "keep": torch.tensor([0, 1])} | change
    with pytest.raises(RuntimeError, match=f"tilewright::_soft_nms_backward: {message}"):
        ops._soft_nms_backward(args["grad"], BOXES, SCORES, args["keep"], 0.3, 0.5, "linear")
