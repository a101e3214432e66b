"""nms and batched_nms: against a pair-at-a-time reference, odd boxes, exports, bad input."""

import math

import pytest
import reference
import torch
from checks import compile_and_run, opcheck, script_round_trip, threads
from conftest import DTYPES
from torch._subclasses import FakeTensorMode

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


def random_boxes(count, size=100.0, dtype=torch.float32):
    corner = torch.rand(count, 2) * size
    extent = torch.rand(count, 2) * size * 0.3
    boxes = torch.cat([corner, corner + extent], 1).to(dtype)
    scores = torch.rand(count).to(dtype)
    return boxes, scores


@pytest.mark.smoke
@kernels
@orders
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200, 1300])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1 / 3, 0.7, 1.0])
def test_nms(device, count, threshold):
    boxes, scores = random_boxes(count)
    kept = tilewright.nms(boxes.to(device), scores.to(device), threshold)
    assert kept.dtype == torch.int64
    assert torch.equal(kept.cpu(), reference.nms(boxes, scores, threshold))


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_equal_scores(device, dtype):
    # 16-bit scores collide: of equal scores the lower index wins.
    boxes, scores = random_boxes(300, dtype=dtype)
    scores = (scores * 20).round() / 20
    kept = tilewright.nms(boxes.to(device), scores.to(device), 0.4)
    assert torch.equal(kept.cpu(), reference.nms(boxes, scores, 0.4))


@kernels
@pytest.mark.parametrize("most", [0, 1, 7, 10_000])
def test_max_output(device, most):
    boxes, scores = random_boxes(200)
    idxs = torch.randint(0, 4, (200,))
    everything = reference.nms(boxes, scores, 0.5)
    kept = tilewright.nms(boxes.to(device), scores.to(device), 0.5, most)
    assert torch.equal(kept.cpu(), everything[:most])
    kept = tilewright.batched_nms(
        boxes.to(device), scores.to(device), idxs.to(device), 0.5, max_output=most
    )
    assert torch.equal(kept.cpu(), reference.nms(boxes, scores, 0.5, idxs=idxs)[:most])


@kernels
@orders
@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_batched_nms(device, classes, dtype):
    boxes, scores = random_boxes(700)
    idxs = torch.randint(-1, classes - 1, (700,), dtype=dtype)
    kept = tilewright.batched_nms(boxes.to(device), scores.to(device), idxs.to(device), 0.3)
    assert torch.equal(kept.cpu(), reference.nms(boxes, scores, 0.3, idxs=idxs))


@kernels
def test_classes_far_from_the_origin(device):
    # torchvision shifts classes apart by the largest coordinate, which costs fp32 its digits here.
    boxes, scores = random_boxes(400)
    boxes = boxes + 3e6
    idxs = torch.randint(0, 50, (400,))
    kept = tilewright.batched_nms(boxes.to(device), scores.to(device), idxs.to(device), 0.5)
    assert torch.equal(kept.cpu(), reference.nms(boxes, scores, 0.5, idxs=idxs))


@kernels
def test_threshold_is_exceeded_not_met(device):
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1], [0, 0, 2, 2]])  # overlaps 1/3 and 1/2
    scores = torch.tensor([0.9, 0.8, 0.7])
    for threshold, kept in [(0.5, [0, 1, 2]), (0.49, [0, 1]), (1 / 3, [0]), (0.34, [0, 1])]:
        out = tilewright.nms(boxes.to(device), scores.to(device), threshold).tolist()
        assert out == kept, (threshold, out)


@kernels
@orders
def test_boxes_that_are_no_boxes(device):
    nan, inf = math.nan, math.inf
    boxes = torch.tensor(
        [
            [0, 0, 10.0, 10],
            [nan, 0, 10, 10],
            [0, 0, inf, 10],
            [-inf, 0, 10, 10],
            [5, 5, 5, 5],  # pairs without area overlap nothing
            [5, 5, 5, 5],
            [10, 10, 0, 0],  # inverted: its area is positive, it meets nothing
            [0, 0, 10, 9.9],
            [0, 0, 10, 9.8],
        ]
    )
    scores = torch.tensor([0.9, 1, 1, 1, 0.8, 0.7, 0.6, nan, 0.5])
    idxs = torch.zeros(9, dtype=torch.int64)
    # Boxes 1 to 3 would come first and suppress the rest; 7 has no score; 8 is suppressed by 0.
    for kept in (
        tilewright.nms(boxes.to(device), scores.to(device), 0.5),
        tilewright.batched_nms(boxes.to(device), scores.to(device), idxs.to(device), 0.5),
    ):
        assert kept.tolist() == [0, 4, 5, 6]


@kernels
@pytest.mark.no_launch
def test_empty(device):
    boxes, scores = torch.zeros(0, 4).to(device), torch.zeros(0).to(device)
    assert tilewright.nms(boxes, scores, 0.5).shape == (0,)
    idxs = torch.zeros(0, dtype=torch.int64).to(device)
    assert tilewright.batched_nms(boxes, scores, idxs, 0.5).shape == (0,)
    nothing = torch.full((3, 4), math.nan).to(device)
    assert tilewright.nms(nothing, torch.ones(3).to(device), 0.5).shape == (0,)


BOXES, SCORES = torch.zeros(3, 4), torch.zeros(3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"boxes": torch.zeros(3, 5)}, r"boxes must have shape \(N, 4\), got \(3, 5\)"),
        ({"boxes": torch.zeros(4)}, r"boxes must have shape \(N, 4\), got \(4,\)"),
        ({"boxes": BOXES.long()}, "boxes must be float64, float32, float16 or bfloat16, got Long"),
        ({"scores": torch.zeros(3, 1)}, r"scores must have shape \(N,\), got \(3, 1\)"),
        ({"scores": torch.zeros(2)}, r"expected one score per box \(3\), got 2"),
        ({"scores": SCORES.long()}, "scores must be float64"),
        ({"iou_threshold": 1.5}, r"iou_threshold must lie in \[0, 1\], got 1.5"),
        ({"iou_threshold": math.nan}, r"iou_threshold must lie in \[0, 1\], got nan"),
        ({"max_output": -2}, r"max_output must be -1 \(all\) or a count, got -2"),
        ({"idxs": torch.zeros(2, dtype=torch.int64)}, r"expected one class per box \(3\), got 2"),
        ({"idxs": SCORES}, "idxs must be of an integer dtype, got Float"),
    ],
)
def test_wrong_input(change, message):
    args = {"boxes": BOXES, "scores": SCORES, "iou_threshold": 0.5} | change
    name = "batched_nms" if "idxs" in args else "nms"
    with pytest.raises(RuntimeError, match=f"tilewright::{name}: {message}"):
        getattr(ops, name)(**args)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match=message):
        getattr(ops, name)(**args)


@kernels
def test_same_result_for_any_number_of_threads(device):
    boxes, scores = random_boxes(4000)
    idxs = torch.randint(0, 5, (4000,))
    for run in (
        lambda: tilewright.nms(boxes.to(device), scores.to(device), 0.9),
        lambda: tilewright.batched_nms(boxes.to(device), scores.to(device), idxs.to(device), 0.9),
    ):
        assert torch.equal(threads(1, run), threads(2, run))


@pytest.mark.smoke
@kernels
def test_opcheck(device):
    boxes, scores = random_boxes(20)
    boxes, scores = boxes.to(device), scores.to(device)
    idxs = torch.randint(0, 3, (20,)).to(device)
    opcheck(ops.nms.default, (boxes, scores, 0.5))
    opcheck(ops.nms.default, (boxes.clone().requires_grad_(), scores, 0.5, 3))
    opcheck(ops.batched_nms.default, (boxes, scores, idxs, 0.5))


def keep_best(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor) -> torch.Tensor:
    kept = tilewright.nms(boxes, scores, 0.5)
    again = tilewright.batched_nms(boxes[kept], scores[kept], idxs[kept], 0.3, 10)
    return boxes[kept][again] * 2


@pytest.mark.smoke
@kernels
def test_script_export_compile(device):
    boxes, scores = random_boxes(50)
    args = boxes.to(device), scores.to(device), torch.randint(0, 3, (50,)).to(device)
    expected = keep_best(*args)
    assert torch.equal(script_round_trip(keep_best, *args), expected)
    assert torch.equal(compile_and_run(keep_best, *args, fullgraph=False), expected)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert torch.equal(compile_and_run(keep_best, *args), expected)

    class Module(torch.nn.Module):
        def forward(self, boxes, scores, idxs):
            return keep_best(boxes, scores, idxs)

    program = torch.export.export(Module(), args)
    other = random_boxes(50)
    other = other[0].to(device), other[1].to(device), args[2]
    assert torch.equal(program.module()(*other), keep_best(*other))


@pytest.mark.smoke
@kernels
def test_autocast_and_gradients_pass_by(device):
    boxes, scores = random_boxes(30)
    leaf = boxes.to(device).requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        kept = tilewright.nms(leaf, scores.to(device), 0.5)
    assert not kept.requires_grad
    assert torch.equal(kept.cpu(), reference.nms(boxes, scores, 0.5))


def test_torchvision_agrees():
    vision = pytest.importorskip("torchvision").ops
    boxes, _ = random_boxes(5000, 1000.0)
    scores = torch.randperm(5000).float()  # torchvision's order of equal scores is undefined
    idxs = torch.randint(0, 7, (5000,))
    assert torch.equal(tilewright.nms(boxes, scores, 0.5), vision.nms(boxes, scores, 0.5))
    theirs = vision.boxes._batched_nms_vanilla(boxes, scores, idxs, 0.5)
    assert torch.equal(tilewright.batched_nms(boxes, scores, idxs, 0.5), theirs)
