"""nms_rotated, batched_nms_rotated and box_iou_rotated: against polygons clipped in fp64, upright
boxes, shapes that are hard to clip, gradients, exports, bad input."""

import math

import pytest
import reference_nms
import torch
from checks import compile_and_run, export_and_run, opcheck, script_round_trip, threads
from conftest import DTYPES
from torch._subclasses import FakeTensorMode

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


def crowd(count, dtype=torch.float32, size=60.0):
    centre = torch.rand(count, 2, dtype=torch.float64) * size
    side = torch.rand(count, 2, dtype=torch.float64) * size / 2 + 1
    angle = (torch.rand(count, 1, dtype=torch.float64) - 0.5) * 4 * math.pi
    return torch.cat([centre, side, angle], 1).to(dtype), torch.rand(count).to(dtype)


def matrix(boxes1, boxes2):
    rows = [[reference_nms.rotated_overlap(a, b) for b in boxes2.tolist()] for a in boxes1.tolist()]
    return torch.tensor(rows, dtype=torch.float64).view(len(boxes1), len(boxes2))


def test_angle_is_counter_clockwise_on_the_screen():
    """A long box turned by 30 degrees covers what lies to its right and above (smaller y)."""
    angle = math.radians(30)
    long = torch.tensor([[0.0, 0, 100, 2, angle]])
    above = torch.tensor([[40 * math.cos(angle), -40 * math.sin(angle), 2, 2, angle]])
    below = torch.tensor([[40 * math.cos(angle), 40 * math.sin(angle), 2, 2, angle]])
    assert tilewright.box_iou_rotated(long, above).item() == pytest.approx(4 / 200)
    assert tilewright.box_iou_rotated(long, below).item() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_iou_rotated(dtype):
    first, second = crowd(30, dtype)[0], crowd(40, dtype)[0]
    out = tilewright.box_iou_rotated(first, second)
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    error = (out.double() - matrix(first.double(), second.double())).abs().max().item()
    assert error <= (1e-12 if dtype == torch.float64 else 2**-23), error


def test_upright_boxes_are_those_of_box_iou():
    corners = torch.rand(50, 2, dtype=torch.float64) * 10
    corners = torch.cat([corners, corners + torch.rand(50, 2, dtype=torch.float64) * 5 + 0.1], 1)
    centre, side = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    expected = tilewright.box_iou(corners, corners)
    for turns in (0, 1, 2, 3, -1):  # a quarter turn swaps the sides
        sides = side.flip(1) if turns % 2 else side
        angle = torch.full((50, 1), turns * math.pi / 2, dtype=torch.float64)
        rotated = torch.cat([centre, sides, angle], 1)
        out = tilewright.box_iou_rotated(rotated, rotated)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)


HARD = {
    "equal": ([3, 4, 5, 2, 0.3], [3, 4, 5, 2, 0.3], 1.0),
    "equal, half a turn": ([3, 4, 5, 2, 0.3], [3, 4, 5, 2, 0.3 + math.pi], 1.0),
    "equal squares, a quarter turn": ([3, 4, 2, 2, 0.3], [3, 4, 2, 2, 0.3 + math.pi / 2], 1.0),
    "contained": ([0, 0, 4, 4, 0.7], [0.1, 0.2, 1, 1, 2.0], 1 / 16),
    "octagon": (
        [0, 0, 2, 2, 0],
        [0, 0, 2, 2, math.pi / 4],
        (8 * math.sqrt(2) - 8) / (16 - 8 * math.sqrt(2)),
    ),
    "edges that touch": ([0, 0, 2, 2, 0], [2, 0, 2, 2, 0], 0.0),
    "an edge in common": ([0, 0, 2, 2, 0], [0, 0.5, 2, 1, 0], 0.5),
    "corners that touch": ([0, 0, 2, 2, 0], [2, 2, 2, 2, 0], 0.0),
    "a cross": ([0, 0, 10, 1, 0.4], [0, 0, 1, 10, 0.4], 1 / 19),
    "thin": ([0, 0, 1e6, 1e-3, 0.5], [0, 0, 1e6, 1e-3, 0.5], 1.0),
    "thin, half apart": (
        [0, 0, 1e6, 1, 0.5],
        [0.5 * math.sin(0.5), 0.5 * math.cos(0.5), 1e6, 1, 0.5],
        1 / 3,
    ),
    "tiny": ([0, 0, 1e-30, 1e-30, 1], [0, 0, 1e-30, 1e-30, 1], 1.0),
    "huge": ([0, 0, 1e30, 1e30, 1], [0, 0, 1e30, 1e30, 1], 1.0),
    "tiny in huge": ([0, 0, 1e6, 1e6, 1], [1e5, 1e5, 1e-3, 1e-3, 2], 1e-18),
    "far away": ([1e9, -1e9, 5, 2, 0.3], [1e9, -1e9, 5, 2, 0.3], 1.0),
    "apart": ([0, 0, 1, 1, 0.3], [1e20, 0, 1, 1, 0.3], 0.0),
    "no width": ([0, 0, 0, 5, 0], [0, 0, 5, 5, 0], 0.0),
    "negative height": ([0, 0, 5, -5, 0], [0, 0, 5, 5, 0], 0.0),
    "NaN": ([0, 0, 5, 5, math.nan], [0, 0, 5, 5, 0], 0.0),
    "infinite": ([0, 0, math.inf, 5, 0], [0, 0, 5, 5, 0], 0.0),
    "area that overflows": ([0, 0, 1e200, 1e200, 0], [0, 0, 1e200, 1e200, 0], 0.0),
}


@pytest.mark.parametrize("name", HARD)
def test_shapes_that_are_hard_to_clip(name):
    a, b, expected = HARD[name]
    pair = torch.tensor([a, b], dtype=torch.float64)
    for first, second in (pair, pair.flip(0)):
        out = tilewright.box_iou_rotated(first[None], second[None]).item()
        assert out == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_batches_of_boxes_and_integers():
    first, second = crowd(12)[0].view(3, 4, 5), crowd(5)[0]
    out = tilewright.box_iou_rotated(first, second)
    assert out.shape == (3, 4, 5)
    assert torch.equal(out[1], tilewright.box_iou_rotated(first[1], second))
    whole = torch.tensor([[0, 0, 2, 2, 0], [1, 0, 2, 2, 0]])
    out = tilewright.box_iou_rotated(whole, whole)
    torch.testing.assert_close(out, torch.tensor([[1, 1 / 3], [1 / 3, 1]]))
    assert tilewright.box_iou_rotated(torch.zeros(0, 5), second).shape == (0, 5)
    assert tilewright.box_iou_rotated(second, torch.zeros(0, 5)).shape == (5, 0)


def test_gradient_of_box_iou_rotated():
    first = crowd(4, torch.float64, 20)[0].requires_grad_()
    second = crowd(5, torch.float64, 20)[0].requires_grad_()
    assert torch.autograd.gradcheck(tilewright.box_iou_rotated, (first, second))
    assert torch.autograd.gradgradcheck(tilewright.box_iou_rotated, (first[:2], second[:2]))


def test_no_gradient_reaches_what_is_no_box():
    boxes = torch.tensor([[0.0, 0, 4, 4, 0], [0, 0, math.nan, 4, 0], [1, 0, 0, 4, 0]])
    leaf = boxes.requires_grad_()
    tilewright.box_iou_rotated(leaf, torch.tensor([[1.0, 1, 4, 4, 0.1]])).sum().backward()
    assert leaf.grad[0].abs().sum() > 0 and not leaf.grad[1:].any()


@kernels
@orders
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 150])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_rotated(device, count, threshold):
    boxes, scores = crowd(count)
    kept = tilewright.nms_rotated(boxes.to(device), scores.to(device), threshold)
    assert kept.dtype == torch.int64
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, threshold))


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_equal_scores(device, dtype):
    boxes, scores = crowd(120, dtype)
    scores = (scores * 20).round() / 20
    kept = tilewright.nms_rotated(boxes.to(device), scores.to(device), 0.4)
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, 0.4))


@kernels
@orders
@pytest.mark.parametrize("most", [-1, 0, 1, 9])
def test_batched_nms_rotated(device, most):
    boxes, scores = crowd(150)
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
    boxes, scores = crowd(4000, torch.float64, 400)
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


def test_wrong_pairs():
    with pytest.raises(RuntimeError, match=r"boxes2 must have shape \(..., N, 5\), got \(3, 4\)"):
        ops.box_iou_rotated(BOXES, torch.zeros(3, 4))
    with pytest.raises(RuntimeError, match=r"boxes1 must have shape \(..., N, 5\), got \(5,\)"):
        ops.box_iou_rotated(BOXES[0], BOXES)
    with pytest.raises(RuntimeError, match="boxes1 must be floating or integer, got Bool"):
        ops.box_iou_rotated(BOXES.bool(), BOXES)
    with pytest.raises(RuntimeError, match=r"boxes2 must be on the device of boxes1 \(cpu\)"):
        ops.box_iou_rotated(BOXES, BOXES.to("meta"))


@kernels
def test_opcheck(device):
    boxes, scores = (t.to(device) for t in crowd(20))
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
    boxes, scores = (t.to(device) for t in crowd(40))
    args = boxes, scores, torch.randint(0, 3, (40,)).to(device)
    expected = best(*args)
    assert torch.equal(script_round_trip(best, *args), expected)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        torch.testing.assert_close(compile_and_run(best, *args), expected)
    other = *(t.to(device) for t in crowd(40)), args[2]
    torch.testing.assert_close(export_and_run(best, *args, other_args=other), best(*other))


@kernels
def test_autocast_and_gradients_pass_by(device):
    boxes, scores = crowd(30)
    leaf = boxes.to(device).requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        kept = tilewright.nms_rotated(leaf, scores.to(device), 0.5)
        overlap = tilewright.box_iou_rotated(leaf, leaf)
    assert not kept.requires_grad and overlap.dtype == torch.float32
    assert torch.equal(kept.cpu(), reference_nms.nms_rotated(boxes, scores, 0.5))
    assert torch.equal(overlap, tilewright.box_iou_rotated(leaf, leaf))
