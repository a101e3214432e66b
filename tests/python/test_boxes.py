"""The box operators against slow references and torchvision, and their gradients."""

import math

import pytest
import reference_boxes as reference
import torch
from checks import assert_near
from conftest import DTYPES
from samples import CLIP, HEAD_WEIGHTS, random_boxes
from torch.testing import assert_close

import tilewright


@pytest.mark.parametrize("dtype", DTYPES)
def test_area_and_overlaps(device, dtype):
    first = random_boxes(13, device, dtype, seed=1)
    second = random_boxes(9, device, dtype, seed=2)
    areas = [reference.area(box) for box in first.double().tolist()]
    expected = torch.tensor(areas, dtype=torch.float64)
    assert_near(tilewright.box_area(first), expected, dtype, scale=1e3)
    assert_near(
        tilewright.box_iou(first, second), reference.pairwise(reference.iou, first, second), dtype
    )
    assert_near(
        tilewright.generalized_box_iou(first, second),
        reference.pairwise(reference.generalized_iou, first, second),
        dtype,
    )


def test_integer_boxes(device):
    boxes = torch.tensor([[0, 0, 70000, 70000], [0, 0, 35000, 70000]], dtype=torch.int32).to(device)
    assert tilewright.box_area(boxes).tolist() == [4900000000, 2450000000]  # no wrap at 2^31
    assert_close(tilewright.box_iou(boxes, boxes).cpu(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))


def test_overlaps_of_batches(device):
    first = random_boxes(12, device, seed=1).reshape(3, 4, 4)
    second = random_boxes(15, device, seed=2).reshape(3, 5, 4)
    for function in (tilewright.box_iou, tilewright.generalized_box_iou):
        together = function(first, second)
        assert together.shape == (3, 4, 5)
        for i in range(3):
            assert torch.equal(together[i], function(first[i], second[i]))


@pytest.mark.parametrize("function", [tilewright.box_iou, tilewright.generalized_box_iou])
def test_overlap_of_boxes_without_area_is_zero_and_has_no_gradient(device, function):
    inf, nan = math.inf, math.nan
    bad = [[5, 5, 5, 5], [5, 5, 5, 9], [nan, 0, 10, 10], [0, 0, inf, 10], [-inf, 0, 10, inf]]
    bad = torch.tensor(bad, dtype=torch.float64, device=device)
    good = torch.tensor([[0, 0, 10, 10]], dtype=torch.float64, device=device)
    boxes1 = torch.cat([bad, good]).requires_grad_()
    boxes2 = torch.cat([bad, good]).requires_grad_()
    overlap = function(boxes1, boxes2)
    assert overlap.isfinite().all()
    assert overlap[5, 5] == 1
    assert (overlap[:5, :5] == 0).all()
    if function is tilewright.box_iou:
        assert (overlap[:5, 5] == 0).all() and (overlap[5, :5] == 0).all()
    overlap.sum().backward()
    assert boxes1.grad.isfinite().all() and boxes2.grad.isfinite().all()
    assert (boxes1.grad[2:5] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_and_resize(device, dtype):
    boxes = (random_boxes(20, device, torch.float64, seed=3) - 30).to(dtype)
    clipped = tilewright.clip_boxes_to_image(boxes, (40, 60))
    expected = [reference.clip(box, 40, 60) for box in boxes.double().tolist()]
    assert clipped.dtype == dtype
    assert_close(
        clipped.double().cpu(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0
    )
    resized = tilewright.resize_boxes(boxes, (40, 60), (100, 90))
    scale = torch.tensor([1.5, 2.5, 1.5, 2.5]).double()
    assert_near(resized, boxes.double().cpu() * scale, dtype, scale=100)
    strange = torch.tensor([[math.nan, -math.inf, math.inf, 3]], device=device)
    assert (
        str(tilewright.clip_boxes_to_image(strange, (40, 60)).tolist()) == "[[nan, 0.0, 60.0, 3.0]]"
    )


def test_boxes_to_rois(device):
    boxes = [random_boxes(2, device), random_boxes(0, device), random_boxes(3, device)]
    rois = tilewright.boxes_to_rois(boxes)
    assert rois[:, 0].tolist() == [0, 0, 2, 2, 2]
    assert torch.equal(rois[:, 1:], torch.cat(boxes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [[1.0] * 4, HEAD_WEIGHTS])
def test_box_coder(device, dtype, weights):
    truths = random_boxes(11, device, dtype, seed=1)
    boxes = random_boxes(11, device, dtype, seed=2)
    codes = tilewright.encode_boxes(truths, boxes, weights)
    assert_near(codes, reference.encode(truths, boxes, weights), dtype, scale=10)
    deltas = (torch.randn(11, 12, generator=torch.Generator().manual_seed(0)) * 5).to(device, dtype)
    decoded = tilewright.decode_boxes(deltas, boxes, weights)
    expected = reference.decode(deltas, boxes, weights, CLIP)
    assert_near(decoded, expected, dtype, scale=expected.abs().max().item())
    if dtype in (torch.float64, torch.float32):
        assert_near(
            tilewright.decode_boxes(codes, boxes, weights), truths.double().cpu(), dtype, scale=200
        )


def test_encode_of_degenerate_boxes_is_zero(device):
    boxes = torch.tensor(
        [[0, 0, 0, 5], [3, 3, 1, 9], [math.nan, 0, 1, 1], [0, 0, math.inf, 1], [0, 0, 4, 4]],
        device=device,
    )
    good = torch.tensor([[0.0, 0, 8, 8]], device=device).expand(5, 4)
    for a, b in ((boxes, good), (good, boxes)):
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        codes = tilewright.encode_boxes(a, b)
        assert (codes[:4] == 0).all() and (codes[4] != 0).all()
        codes.sum().backward()
        for grad in (a.grad, b.grad):
            assert grad.isfinite().all() and (grad[:4] == 0).all()


def test_decode_keeps_nan_in_its_row(device):
    deltas = torch.zeros(3, 4, device=device)
    deltas[1, 0] = math.nan
    deltas[2, 2] = math.inf
    decoded = tilewright.decode_boxes(deltas, random_boxes(3, device))
    assert decoded[[0, 2]].isfinite().all()
    assert decoded[1].isnan().any()


def test_empty_inputs(device):
    none = torch.zeros(0, 4, device=device)
    some = random_boxes(3, device)
    assert tilewright.box_area(none).shape == (0,)
    for function in (tilewright.box_iou, tilewright.generalized_box_iou):
        assert function(none, some).shape == (0, 3)
        assert function(some, none).shape == (3, 0)
    assert tilewright.clip_boxes_to_image(none, (5, 5)).shape == (0, 4)
    assert tilewright.resize_boxes(none, (5, 5), (6, 6)).shape == (0, 4)
    assert tilewright.boxes_to_rois([none, none]).shape == (0, 5)
    assert tilewright.encode_boxes(none, none).shape == (0, 4)
    assert tilewright.decode_boxes(torch.zeros(0, 12, device=device), none).shape == (0, 12)
    assert tilewright.match_boxes(torch.zeros(3, 0, device=device), 0.5, 0.5, True).shape == (0,)
    label, matched = tilewright.assign_targets(
        some, torch.ones(3, dtype=torch.int64, device=device), none, 0.5, 0.5
    )
    assert label.shape == (0,) and matched.shape == (0, 4)
    boxes, scores = tilewright.generate_proposals(none[:, 0], none, none, [0, 0], (5, 5))
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    found = tilewright.postprocess_detections(
        torch.zeros(0, 3, device=device), torch.zeros(0, 12, device=device), (5, 5)
    )
    assert [x.shape for x in found] == [(0, 4), (0,), (0,)]


def test_equals_torchvision(device):
    vision = pytest.importorskip("torchvision.ops.boxes")
    utils = pytest.importorskip("torchvision.models.detection._utils")
    first, second = random_boxes(50, device, seed=1), random_boxes(50, device, seed=2)
    assert torch.equal(tilewright.box_area(first), vision.box_area(first))
    assert torch.equal(tilewright.box_iou(first, second), vision.box_iou(first, second))
    assert torch.equal(
        tilewright.generalized_box_iou(first, second), vision.generalized_box_iou(first, second)
    )
    assert torch.equal(
        tilewright.clip_boxes_to_image(first, (50, 60)), vision.clip_boxes_to_image(first, (50, 60))
    )
    coder = utils.BoxCoder(tuple(HEAD_WEIGHTS))
    assert torch.equal(
        tilewright.encode_boxes(first, second, HEAD_WEIGHTS), coder.encode_single(first, second)
    )
    deltas = torch.randn(50, 12, device=device) * 10
    assert torch.equal(
        tilewright.decode_boxes(deltas, first, HEAD_WEIGHTS), coder.decode_single(deltas, first)
    )
    iou = tilewright.box_iou(first[:7], second)
    for allow_low_quality in (False, True):
        assert torch.equal(
            tilewright.match_boxes(iou, 0.4, 0.2, allow_low_quality),
            utils.Matcher(0.4, 0.2, allow_low_quality)(iou),
        )


@pytest.mark.smoke
def test_gradients(device):
    first = random_boxes(4, device, torch.float64, seed=1).requires_grad_()
    second = random_boxes(3, device, torch.float64, seed=2).requires_grad_()
    third = random_boxes(4, device, torch.float64, seed=3).requires_grad_()
    deltas = (torch.randn(4, 8, dtype=torch.float64) * 0.1).to(device).requires_grad_()
    check = torch.autograd.gradcheck
    assert check(tilewright.box_area, (first,))
    assert check(tilewright.box_iou, (first, second))
    assert check(tilewright.generalized_box_iou, (first, second))
    assert check(lambda x: tilewright.clip_boxes_to_image(x, (40, 60)), (first,))
    assert check(lambda x: tilewright.resize_boxes(x, (40, 60), (50, 70)), (first,))
    assert check(lambda x, y: tilewright.boxes_to_rois([x, y]), (first, second))
    assert check(lambda x, y: tilewright.encode_boxes(x, y, HEAD_WEIGHTS), (first, third))
    assert check(lambda d, x: tilewright.decode_boxes(d, x, HEAD_WEIGHTS), (deltas, first))
    assert torch.autograd.gradgradcheck(tilewright.generalized_box_iou, (first, second))
