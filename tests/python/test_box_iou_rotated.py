"""box_iou_rotated: against polygons clipped in fp64, upright boxes, shapes that are hard to clip,
gradients, bad input."""

import math

import pytest
import reference_nms
import torch
from conftest import DTYPES
from samples import rotated_crowd

import tilewright

ops = torch.ops.tilewright


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


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", DTYPES)
def test_box_iou_rotated(dtype):
    first, second = rotated_crowd(30, dtype)[0], rotated_crowd(40, dtype)[0]
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
    first, second = rotated_crowd(12)[0].view(3, 4, 5), rotated_crowd(5)[0]
    out = tilewright.box_iou_rotated(first, second)
    assert out.shape == (3, 4, 5)
    assert torch.equal(out[1], tilewright.box_iou_rotated(first[1], second))
    whole = torch.tensor([[0, 0, 2, 2, 0], [1, 0, 2, 2, 0]])
    out = tilewright.box_iou_rotated(whole, whole)
    torch.testing.assert_close(out, torch.tensor([[1, 1 / 3], [1 / 3, 1]]))
    assert tilewright.box_iou_rotated(torch.zeros(0, 5), second).shape == (0, 5)
    assert tilewright.box_iou_rotated(second, torch.zeros(0, 5)).shape == (5, 0)


def test_gradient_of_box_iou_rotated():
    first = rotated_crowd(4, torch.float64, 20)[0].requires_grad_()
    second = rotated_crowd(5, torch.float64, 20)[0].requires_grad_()
    assert torch.autograd.gradcheck(tilewright.box_iou_rotated, (first, second))
    assert torch.autograd.gradgradcheck(tilewright.box_iou_rotated, (first[:2], second[:2]))


def test_no_gradient_reaches_what_is_no_box():
    boxes = torch.tensor([[0.0, 0, 4, 4, 0], [0, 0, math.nan, 4, 0], [1, 0, 0, 4, 0]])
    leaf = boxes.requires_grad_()
    tilewright.box_iou_rotated(leaf, torch.tensor([[1.0, 1, 4, 4, 0.1]])).sum().backward()
    assert leaf.grad[0].abs().sum() > 0 and not leaf.grad[1:].any()


BOXES = torch.zeros(3, 5)


def test_wrong_pairs():
    with pytest.raises(RuntimeError, match=r"boxes2 must have shape \(..., N, 5\), got \(3, 4\)"):
        ops.box_iou_rotated(BOXES, torch.zeros(3, 4))
    with pytest.raises(RuntimeError, match=r"boxes1 must have shape \(..., N, 5\), got \(5,\)"):
        ops.box_iou_rotated(BOXES[0], BOXES)
    with pytest.raises(RuntimeError, match="boxes1 must be floating or integer, got Bool"):
        ops.box_iou_rotated(BOXES.bool(), BOXES)
    with pytest.raises(RuntimeError, match=r"boxes2 must be on the device of boxes1 \(cpu\)"):
        ops.box_iou_rotated(BOXES, BOXES.to("meta"))
