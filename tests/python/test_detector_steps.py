"""Anchors, matching, sampling, proposals and detections against slow references, torchvision."""

import math

import pytest
import reference_boxes as reference
import torch
from checks import assert_near
from conftest import DTYPES
from samples import HEAD_WEIGHTS, detection_inputs, proposal_inputs, random_boxes

import tilewright

ops = torch.ops.tilewright


@pytest.mark.parametrize("dtype", DTYPES)
def test_anchors(device, dtype):
    maps, image = [(5, 7), (3, 4), (1, 1)], (161, 225)
    features = [torch.zeros(2, 3, *size, dtype=dtype, device=device) for size in maps]
    sizes = [[31, 45], [64, 91], [127, 181]]  # odd, so that halves are rounded
    ratios = [[0.5, 1, 2]] * 3
    anchors = tilewright.grid_anchors(features, sizes, ratios, image)
    expected = reference.anchors(maps, sizes, ratios, image)
    assert anchors.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(anchors.double().cpu(), expected)


def test_predictions_stand_in_the_order_of_anchors(device):
    levels = [torch.rand(2, 6, 3, 4, device=device), torch.rand(2, 6, 2, 1, device=device)]
    flat = ops.flatten_predictions(levels, 2)
    rows = []
    for level in levels:
        for y in range(level.size(2)):
            for x in range(level.size(3)):
                rows += [level[:, 2 * anchor : 2 * anchor + 2, y, x] for anchor in range(3)]
    assert torch.equal(flat, torch.stack(rows, 1))


@pytest.mark.parametrize("allow_low_quality", [False, True])
def test_match(device, allow_low_quality):
    generator = torch.Generator().manual_seed(0)
    for truths in (1, 4, 0):
        # Eighths, so that ties occur in rows and in columns, and values equal to the thresholds.
        iou = (torch.rand(truths, 40, generator=generator) * 7).round() / 8
        matches = tilewright.match_boxes(iou.to(device), 0.75, 0.25, allow_low_quality)
        assert torch.equal(matches.cpu(), reference.match(iou, 0.75, 0.25, allow_low_quality))


def test_match_of_nan_is_background(device):
    iou = torch.tensor([[math.nan, 0.9, 0.2], [0.8, math.nan, 0.2]], device=device)
    for allow_low_quality in (False, True):
        assert tilewright.match_boxes(iou, 0.7, 0.3, allow_low_quality).tolist() == [-1, -1, -1]


def test_assign_targets(device):
    truths = random_boxes(5, device, seed=1)
    labels = torch.tensor([3, 1, 2, 3, 1], device=device)
    boxes = torch.cat([random_boxes(60, device, seed=2), truths + 1])
    got, matched = tilewright.assign_targets(truths, labels, boxes, 0.5, 0.2, True)
    matches = reference.match(tilewright.box_iou(truths, boxes).cpu(), 0.5, 0.2, True)
    for i, match in enumerate(matches.tolist()):
        assert got[i] == (labels[match] if match >= 0 else match + 1 if match == -1 else -1)
        assert torch.equal(matched[i], truths[max(match, 0)])
    none, zeros = tilewright.assign_targets(truths[:0], labels[:0], boxes, 0.5, 0.2, True)
    assert (none == 0).all() and none.shape == (65,)
    assert (zeros == 0).all() and zeros.shape == (65, 4)


def test_a_ground_truth_that_overlaps_nothing_keeps_nothing():
    # torchvision's low-quality rule would give it every box, as 0 is its highest overlap.
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    for truth in ([500.0, 500, 510, 510], [5, 5, 5, 5], [math.nan, 0, 1, 1]):
        labels, _ = torch.ops.tilewright.assign_targets(
            torch.tensor([truth, [0.0, 0, 10, 6]]), torch.tensor([3, 4]), boxes, 0.7, 0.3, True
        )
        assert labels.tolist() == [4, 0]


@pytest.mark.parametrize(
    ("positives", "negatives"), [(50, 200), (3, 200), (50, 5), (0, 200), (50, 0), (0, 0)]
)
def test_sample_balanced(device, positives, negatives):
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.full((positives,), 2), torch.zeros(negatives), torch.full((7,), -1)])
    labels = labels.long()[torch.randperm(len(labels), generator=generator)]
    # Few distinct keys, so that ties are decided by index.
    noise = (torch.rand(len(labels), generator=generator) * 8).floor() / 8
    got = tilewright.sample_balanced(labels.to(device), 32, 0.25, noise.to(device))
    for mask, expected in zip(got, reference.sample(labels, noise, 32, 0.25), strict=True):
        assert torch.equal(mask.cpu(), expected)


def test_sample_balanced_draws_from_the_generator(device):
    labels = torch.randint(-1, 2, (200,)).to(device)
    drawn = [
        tilewright.sample_balanced(
            labels, 32, 0.5, generator=torch.Generator(device=device).manual_seed(seed)
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][1], drawn[2][1])


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_generate_proposals(device, dtype):
    inputs, level_sizes = proposal_inputs(device, dtype)
    boxes, scores = tilewright.generate_proposals(*inputs, level_sizes, (90, 110), 20, 15)
    expected = reference.proposals(*inputs, level_sizes, (90, 110), 20, 15, 0.7)
    assert_near(boxes, expected[0], dtype, scale=100)
    assert_near(scores, expected[1], dtype)


@pytest.mark.kernels
def test_generate_proposals_drops_nan(device):
    (objectness, deltas, anchors), level_sizes = proposal_inputs(device)
    objectness[:5] = math.nan
    deltas[60:65] = math.nan
    boxes, scores = tilewright.generate_proposals(
        objectness, deltas, anchors, level_sizes, (90, 110), 20, 100
    )
    assert boxes.isfinite().all() and scores.isfinite().all()
    clean = torch.ones(90, dtype=torch.bool, device=device)
    clean[:5] = False
    without, _ = tilewright.generate_proposals(
        objectness[clean], deltas[clean], anchors[clean], [55, 24, 6], (90, 110), 20, 100
    )
    assert torch.equal(boxes, without)  # a NaN takes no place among the best


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_postprocess_detections(device, dtype):
    scores, boxes = detection_inputs(device, dtype)
    got = tilewright.postprocess_detections(scores, boxes, (90, 110), 0.1, 0.4, 25)
    expected = reference.detections(scores, boxes, (90, 110), 0.1, 0.4, 25)
    assert_near(got[0], expected[0], dtype, scale=100)
    assert_near(got[1], expected[1], dtype)
    assert torch.equal(got[2].cpu(), expected[2])


@pytest.mark.kernels
def test_postprocess_detections_drops_nan(device):
    scores, boxes = detection_inputs(device)
    scores[3], boxes[4] = math.nan, math.nan
    keep = [i for i in range(40) if i not in (3, 4)]
    got = tilewright.postprocess_detections(scores, boxes, (90, 110))
    expected = tilewright.postprocess_detections(scores[keep], boxes[keep], (90, 110))
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def test_anchors_equal_torchvision(device):
    vision = pytest.importorskip("torchvision.models.detection.anchor_utils")
    from torchvision.models.detection.image_list import ImageList

    features = [torch.rand(2, 8, *size, device=device) for size in ((25, 31), (13, 16), (7, 8))]
    sizes, ratios = ((32, 45), (64, 91), (128, 181)), ((0.5, 1.0, 2.0),) * 3
    images = ImageList(torch.rand(2, 3, 200, 256, device=device), [(200, 256)] * 2)
    expected = vision.AnchorGenerator(sizes, ratios)(images, features)[0]
    assert torch.equal(tilewright.grid_anchors(features, sizes, ratios, (200, 256)), expected)


@pytest.mark.kernels
def test_proposals_and_detections_equal_torchvision(device):
    vision = pytest.importorskip("torchvision.models.detection")
    (objectness, deltas, anchors), level_sizes = proposal_inputs(device)
    rpn = vision.rpn.RegionProposalNetwork(
        None,
        torch.nn.Identity(),
        *(0.7, 0.3, 256, 0.5),
        {"training": 20, "testing": 20},
        {"training": 15, "testing": 15},
        0.7,
    ).eval()
    decoded = rpn.box_coder.decode(deltas, [anchors]).view(1, -1, 4)
    expected = rpn.filter_proposals(decoded, objectness, [(90, 110)], level_sizes)
    got = tilewright.generate_proposals(objectness, deltas, anchors, level_sizes, (90, 110), 20, 15)
    assert torch.equal(got[0], expected[0][0])
    assert torch.equal(got[1], expected[1][0])

    heads = vision.roi_heads.RoIHeads(
        None, None, None, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 100
    ).eval()
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(90, 5, generator=generator) * 2).to(device)
    class_deltas = torch.randn(90, 20, generator=generator).to(device)
    expected = heads.postprocess_detections(logits, class_deltas, [anchors], [(90, 110)])
    got = tilewright.postprocess_detections(
        logits.softmax(-1),
        tilewright.decode_boxes(class_deltas, anchors, HEAD_WEIGHTS),
        (90, 110),
    )
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b[0])
