"""The box operators against slow references and torchvision, and through every door they have."""

import importlib.util
import math

import pytest
import reference_boxes as reference
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck
from torch.testing import assert_close
from torch.utils._pytree import tree_map_only

import tilewright

ops = torch.ops.tilewright
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
HEAD_WEIGHTS = [10.0, 10.0, 5.0, 5.0]
CLIP = math.log(1000 / 16)


def random_boxes(count, device, dtype=torch.float32, size=100.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size
    side = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size * 0.5 + 1
    return torch.cat([corner, corner + side], 1).to(device=device, dtype=dtype)


def tolerance(dtype):
    """16-bit inputs are computed in float32, so they have its tolerance."""
    return (
        {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    )


def assert_near(actual, expected, dtype, scale=1.0):
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    limit = tolerance(dtype)
    assert_close(actual.double().cpu(), expected, rtol=limit["rtol"], atol=limit["atol"] * scale)


# --- values -------------------------------------------------------------------------------------


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


def proposal_inputs(device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    level_sizes = [60, 24, 6]
    objectness = torch.randn(90, generator=generator, dtype=torch.float64) * 3
    deltas = torch.randn(90, 4, generator=generator, dtype=torch.float64) * 0.3
    anchors = random_boxes(90, "cpu", torch.float64, seed=seed)
    inputs = (objectness, deltas, anchors)
    return [x.to(device=device, dtype=dtype) for x in inputs], level_sizes


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


def detection_inputs(device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(40, 4, generator=generator, dtype=torch.float64) * 2).softmax(-1)
    boxes = random_boxes(160, "cpu", torch.float64, seed=seed).reshape(40, 16)
    return scores.to(device=device, dtype=dtype), boxes.to(device=device, dtype=dtype)


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


# --- torchvision --------------------------------------------------------------------------------


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


# --- gradients and doors ------------------------------------------------------------------------


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


def calls(device):
    """One call of every operator: the operator and its arguments."""
    boxes, other = random_boxes(6, device, seed=1), random_boxes(5, device, seed=2)
    features = [torch.rand(1, 12, 4, 5, device=device), torch.rand(1, 12, 2, 3, device=device)]
    (objectness, deltas, anchors), level_sizes = proposal_inputs(device)
    scores, class_boxes = detection_inputs(device)
    labels = torch.randint(-1, 3, (40,), generator=torch.Generator().manual_seed(0)).to(device)
    images = [torch.rand(3, 20, 30, device=device), torch.rand(3, 25, 15, device=device)]
    truth = torch.ones(6, dtype=torch.int64, device=device)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    return {
        "box_area": (boxes,),
        "box_iou": (boxes, other),
        "generalized_box_iou": (boxes, other),
        "clip_boxes": (boxes, 50, 60),
        "resize_boxes": (boxes, [50, 60], [70, 90]),
        "boxes_to_rois": ([boxes, other],),
        "encode_boxes": (boxes, boxes + 1, HEAD_WEIGHTS),
        "decode_boxes": (torch.rand(6, 8, device=device), boxes, HEAD_WEIGHTS, CLIP),
        "grid_anchors": (features, [32.0, 64.0], [0.5, 1.0, 0.5, 1.0], 40, 50),
        "flatten_predictions": (features, 4),
        "match_boxes": (torch.rand(3, 40, device=device), 0.7, 0.3, True),
        "assign_targets": (boxes, truth, random_boxes(30, device, seed=3), 0.5, 0.3, True),
        "sample_balanced": (labels, torch.rand(40, device=device), 16, 0.5),
        "generate_proposals": (objectness, deltas, anchors, level_sizes, 90, 110, 20, 15),
        "postprocess_detections": (scores, class_boxes, 90, 110),
        "resize_images": (images, mean, std, 24, 40),
        "pad_images": (images, 16),
        "prepare_targets": ([boxes, other], [truth, truth[:5]], images, images, 3),
    }


DIFFERENTIABLE = ["box_area", "box_iou", "generalized_box_iou", "clip_boxes", "encode_boxes"]
DATA_DEPENDENT = ["generate_proposals", "postprocess_detections"]
NAMES = list(calls("cpu"))


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device, name):
    arguments = calls(device)[name]
    operator = getattr(ops, name).default
    opcheck(operator, arguments)
    if name in DIFFERENTIABLE:
        tracked = [x.requires_grad_() if isinstance(x, torch.Tensor) else x for x in arguments]
        opcheck(operator, tuple(tracked))


def is_tensors(x):
    return isinstance(x, torch.Tensor) or (isinstance(x, list) and isinstance(x[0], torch.Tensor))


def as_module(name, arguments):
    """A module whose forward takes the tensors among the arguments and knows the others."""
    takes = [is_tensors(x) for x in arguments]
    operator = getattr(ops, name)

    class Call(torch.nn.Module):
        def forward(self, *tensors):
            given = iter(tensors)
            filled = [next(given) if t else x for t, x in zip(takes, arguments, strict=True)]
            return operator(*filled)

    return Call(), tuple(x for x in arguments if is_tensors(x))


def as_script(name, arguments, folder):
    """The same in TorchScript, from a source file, which is where scripting reads from."""
    parameters, passed = [], []
    for i, x in enumerate(arguments):
        if is_tensors(x):
            kind = "Tensor" if isinstance(x, torch.Tensor) else "list[Tensor]"
            parameters.append(f"x{i}: {kind}")
            passed.append(f"x{i}")
        else:
            passed.append(repr(x))
    source = folder / f"script_{name}.py"
    source.write_text(
        "import torch\nfrom torch import Tensor\n\nclass Call(torch.nn.Module):\n"
        f"    def forward(self, {', '.join(parameters)}):\n"
        f"        return torch.ops.tilewright.{name}({', '.join(passed)})\n"
    )
    spec = importlib.util.spec_from_file_location(source.stem, source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return torch.jit.script(module.Call())


def assert_same(got, expected):
    got = [got] if isinstance(got, torch.Tensor) else list(got)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("name", tilewright.boxes.__all__)
def test_sugar_is_scriptable(name):
    torch.jit.script(getattr(tilewright, name))


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_torchscript_file(device, name, tmp_path):
    arguments = calls(device)[name]
    as_script(name, arguments, tmp_path).save(tmp_path / "call.pt")
    loaded = torch.jit.load(tmp_path / "call.pt")
    assert f"tilewright::{name}" in str(loaded.graph)
    tensors = [x for x in arguments if is_tensors(x)]
    assert_same(loaded(*tensors), getattr(ops, name)(*arguments))


@pytest.mark.parametrize("name", NAMES)
def test_export_and_compile(device, name):
    arguments = calls(device)[name]
    module, tensors = as_module(name, arguments)
    expected = getattr(ops, name)(*arguments)
    assert_same(torch.export.export(module, tensors).module()(*tensors), expected)
    # What depends on data breaks the graph, unless dynamo is told to capture it.
    compiled = torch.compile(module, backend="aot_eager", fullgraph=name not in DATA_DEPENDENT)
    assert_same(compiled(*tensors), expected)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        assert_same(compiled(*tensors), expected)
    torch._dynamo.reset()


def test_export_with_any_number_of_boxes(device):
    class Steps(torch.nn.Module):
        def forward(self, truths, labels, boxes, noise):
            label, matched = ops.assign_targets(truths, labels, boxes, 0.5, 0.3, True)
            positive, negative = ops.sample_balanced(label, noise, 16, 0.5)
            codes = ops.encode_boxes(matched, ops.clip_boxes(boxes, 80, 90), HEAD_WEIGHTS)
            return positive, negative, codes, ops.generalized_box_iou(truths, boxes)

    def inputs(truths, boxes):
        labels = torch.ones(truths, dtype=torch.int64, device=device)
        noise = torch.rand(boxes, device=device)
        return random_boxes(truths, device), labels, random_boxes(boxes, device, seed=1), noise

    count, many = torch.export.Dim("count"), torch.export.Dim("many")
    program = torch.export.export(
        Steps(), inputs(5, 40), dynamic_shapes=({0: count}, {0: count}, {0: many}, {0: many})
    )
    for sizes in ((5, 40), (2, 9), (11, 100)):
        arguments = inputs(*sizes)
        assert_same(program.module()(*arguments), Steps()(*arguments))


def test_nothing_is_read_back_from_the_device(device):
    """What would synchronise a GPU with the host must not occur in the training steps."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Guard(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = str(function)
            assert not any(bad in name for bad in ("_local_scalar", "nonzero", "unique")), name
            return function(*args, **(kwargs or {}))

    arguments = calls(device)
    with Guard():
        for name in NAMES:
            if name not in (*DATA_DEPENDENT, "prepare_targets"):
                getattr(ops, name)(*arguments[name])
    # This one looks at the numbers of CPU tensors, and of no others: fake ones have none to read.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = tree_map_only(torch.Tensor, mode.from_tensor, arguments["prepare_targets"])
        ops.prepare_targets(*fake)


# --- wrong inputs -------------------------------------------------------------------------------


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
        ("grid_anchors", ([f], [1.0], [-1.0], 8, 8), "aspect_ratios must be positive, got -1"),
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


def test_a_ground_truth_that_overlaps_nothing_keeps_nothing():
    # torchvision's low-quality rule would give it every box, as 0 is its highest overlap.
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    for truth in ([500.0, 500, 510, 510], [5, 5, 5, 5], [math.nan, 0, 1, 1]):
        labels, _ = torch.ops.tilewright.assign_targets(
            torch.tensor([truth, [0.0, 0, 10, 6]]), torch.tensor([3, 4]), boxes, 0.7, 0.3, True
        )
        assert labels.tolist() == [4, 0]
