"""nms_rotated and batched_nms_rotated: against polygons clipped in fp64, odd boxes, exports, bad
input."""

import math

import pytest
import reference_nms
import torch
from checks import compile_and_run, export_and_run, opcheck, script_round_trip, threads
from conftest import DTYPES
from samples import rotated_crowd
from torch._subclasses import FakeTensorMode

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


@kernels
@orders
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 150])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_rotated(device, count, threshold):
    boxes, scores = rotated_crowd(count)
    kept = tilewright.nms_rotated(boxes.to(device), scores.to(device), threshold)
    assert kept.dtype == torch.int64
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, threshold))


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_equal_scores(device, dtype):
    boxes, scores = rotated_crowd(120, dtype)
    scores = (scores * 20).round() / 20
    kept = tilewright.nms_rotated(boxes.to(device), scores.to(device), 0.4)
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, 0.4))


@kernels
@orders
@pytest.mark.parametrize("most", [-1, 0, 1, 9])
def test_batched_nms_rotated(device, most):
    boxes, scores = rotated_crowd(150)
    idxs = torch.randint(-2, 2, (150,), dtype=torch.int32)
    kept = tilewright.batched_nms_rotated(
        boxes.to(device), scores.to(device), idxs.to(device), 0.2, most
    )
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, 0.2, most, idxs))
    kept = tilewright.nms_rotated(boxes.to(device), scores.to(device), 0.2, most)
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, 0.2, most))


@kernels
def test_boxes_that_are_no_boxes(device):
    nan, inf = math.nan, math.inf
    boxes = torch.tensor(
        [
            [0, 0, 10.0, 10, 0.2],
            [0, 0, 10, 10, nan],
            [0, 0, inf, 10, 0],
            [5, 5, 0, 5, 0],  # without area: meets nothing
            [5, 5, 0, 5, 0],
            [0, 0, -10, -10, 0],
            [0, 0, 10, 9.9, 0.2],
            [0, 0, 10, 9.8, 0.2],
            [0, 0, 10, 10, 0.2 + math.pi],  # the first one, turned around
        ]
    )
    scores = torch.tensor([0.9, 1, 1, 0.8, 0.7, 0.6, nan, 0.5, 0.4])
    kept = tilewright.nms_rotated(boxes.to(device), scores.to(device), 0.5)
    assert kept.tolist() == [0, 3, 4, 5]


@kernels
def test_boxes_that_lie_apart_by_little(device):
    """At threshold 0 nothing may be left of the rounding of the shared area: pairs whose upright
    boxes overlap, a millionth of a side apart along an axis of one of them."""
    count = 4000
    box = torch.rand(count, 5, dtype=torch.float64) * torch.tensor([50.0, 50, 30, 30, 6]) + 0.1
    other = torch.rand(count, 5, dtype=torch.float64) * torch.tensor([1.0, 1, 30, 30, 6]) + 0.1
    turn = other[:, 4] - box[:, 4]
    reach = box[:, 2] + other[:, 2] * turn.cos().abs() + other[:, 3] * turn.sin().abs()
    along = reach / 2 * (1 + 1e-6)
    other[:, 0] = box[:, 0] + along * box[:, 4].cos()
    other[:, 1] = box[:, 1] - along * box[:, 4].sin()
    pairs = torch.stack([box, other], 1).flatten(0, 1).to(device)
    classes = torch.arange(count, device=device).repeat_interleave(2)
    scores = torch.rand(2 * count, device=device)
    assert len(tilewright.batched_nms_rotated(pairs, scores, classes, 0.0)) == 2 * count


@kernels
@pytest.mark.no_launch
def test_empty(device):
    boxes, scores = torch.zeros(0, 5).to(device), torch.zeros(0).to(device)
    assert tilewright.nms_rotated(boxes, scores, 0.5).shape == (0,)
    idxs = torch.zeros(0, dtype=torch.int64).to(device)
    assert tilewright.batched_nms_rotated(boxes, scores, idxs, 0.5).shape == (0,)


def plain_sweep(boxes, scores, threshold):
    kept, rest = [], torch.sort(scores, descending=True, stable=True).indices
    while len(rest):
        kept.append(rest[0])
        overlap = tilewright.box_iou_rotated(boxes[rest[:1]], boxes[rest])[0]
        stays = overlap <= threshold
        stays[0] = False
        rest = rest[stays]
    return torch.stack(kept)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["uniform", "thin", "clusters"])
def test_index_leaves_out_nothing(kind, threshold):
    boxes, scores = rotated_crowd(4000, torch.float64, 400)
    if kind == "thin":
        boxes[:, 3] /= 20
    if kind == "clusters":
        boxes = boxes[torch.randint(200, (4000,))] + torch.randn(4000, 5) * 3
    boxes[:, 4][::3] = 0  # upright ones fill the boxes around them
    expected = plain_sweep(boxes, scores, threshold)
    for count in (1, 2):
        out = threads(count, lambda: tilewright.nms_rotated(boxes, scores, threshold))
        assert torch.equal(out, expected)


BOXES, SCORES = torch.zeros(3, 5), torch.zeros(3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"boxes": torch.zeros(3, 4)}, r"boxes must have shape \(N, 5\), got \(3, 4\)"),
        ({"boxes": BOXES.long()}, "boxes must be float64, float32, float16 or bfloat16, got Long"),
        ({"scores": torch.zeros(2)}, r"expected one score per box \(3\), got 2"),
        ({"iou_threshold": math.nan}, r"iou_threshold must lie in \[0, 1\], got nan"),
        ({"max_output": -2}, r"max_output must be -1 \(all\) or a count, got -2"),
        ({"idxs": SCORES}, "idxs must be of an integer dtype, got Float"),
    ],
)
def test_wrong_input(change, message):
    args = {"boxes": BOXES, "scores": SCORES, "iou_threshold": 0.5} | change
    name = "batched_nms_rotated" if "idxs" in args else "nms_rotated"
    with pytest.raises(RuntimeError, match=f"tilewright::{name}: {message}"):
        getattr(ops, name)(**args)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match=message):
        getattr(ops, name)(**args)


@pytest.mark.smoke
@kernels
def test_opcheck(device):
    boxes, scores = (t.to(device) for t in rotated_crowd(20))
    idxs = torch.randint(0, 3, (20,)).to(device)
    opcheck(ops.nms_rotated.default, (boxes, scores, 0.5))
    opcheck(ops.nms_rotated.default, (boxes.clone().requires_grad_(), scores, 0.5, 3))
    opcheck(ops.batched_nms_rotated.default, (boxes, scores, idxs, 0.5))
    opcheck(ops.box_iou_rotated.default, (boxes, boxes))


def best(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor) -> torch.Tensor:
    kept = tilewright.nms_rotated(boxes, scores, 0.5)
    again = tilewright.batched_nms_rotated(boxes[kept], scores[kept], idxs[kept], 0.3, 10)
    chosen = boxes[kept][again]
    return tilewright.box_iou_rotated(chosen, chosen)


@kernels
def test_script_export_compile(device):
    boxes, scores = (t.to(device) for t in rotated_crowd(40))
    args = boxes, scores, torch.randint(0, 3, (40,)).to(device)
    expected = best(*args)
    assert torch.equal(script_round_trip(best, *args), expected)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        torch.testing.assert_close(compile_and_run(best, *args), expected)
    other = *(t.to(device) for t in rotated_crowd(40)), args[2]
    torch.testing.assert_close(export_and_run(best, *args, other_args=other), best(*other))


@kernels
def test_autocast_and_gradients_pass_by(device):
    boxes, scores = rotated_crowd(30)
    leaf = boxes.to(device).requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        kept = tilewright.nms_rotated(leaf, scores.to(device), 0.5)
        overlap = tilewright.box_iou_rotated(leaf, leaf)
    assert not kept.requires_grad and overlap.dtype == torch.float32
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, 0.5))
    assert torch.equal(overlap, tilewright.box_iou_rotated(leaf, leaf))
