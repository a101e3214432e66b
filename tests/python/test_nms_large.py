"""nms and batched_nms on many boxes: the index over kept boxes may leave out nothing that matters,
so results are held against a plain sweep in the same arithmetic, for every kind of crowd."""

import math
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from checks import threads

import tilewright


def plain_sweep(boxes, scores, threshold):
    """Each kept box against all that remain, in the dtype of the boxes."""
    order = torch.sort(scores, descending=True, stable=True).indices
    usable = boxes.isfinite().all(1) & ~scores.isnan()
    order = order[usable[order]].numpy()
    rows = boxes.numpy()[order]
    zero, kept = rows.dtype.type(0), []
    with numpy.errstate(all="ignore"):
        area = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
        while len(order):
            kept.append(order[0])
            box = rows[0]
            width = numpy.maximum(
                numpy.minimum(rows[:, 2], box[2]) - numpy.maximum(rows[:, 0], box[0]), zero
            )
            height = numpy.maximum(
                numpy.minimum(rows[:, 3], box[3]) - numpy.maximum(rows[:, 1], box[1]), zero
            )
            overlap = width * height / (area + area[0] - width * height)
            stays = ~(overlap.astype(numpy.float64) > threshold)
            stays[0] = False
            order, rows, area = order[stays], rows[stays], area[stays]
    return torch.tensor(numpy.array(kept, dtype=numpy.int64))


def corners(centre, side):
    return torch.cat([centre - side / 2, centre + side / 2], 1)


def uniform(count, dtype):
    side = torch.rand(count, 2, dtype=dtype) * 300
    return corners(torch.rand(count, 2, dtype=dtype) * 1000, side)


def log_uniform(count, dtype):
    """Sides over nine orders of magnitude."""
    side = 10.0 ** (torch.rand(count, 2, dtype=dtype) * 9 - 5)
    return corners(
        torch.randn(count, 2, dtype=dtype) * 10.0 ** torch.randint(0, 4, (count, 1)), side
    )


def clusters(count, dtype):
    """As a region proposal network gives them: heaps around objects."""
    objects = uniform(max(count // 50, 1), dtype)
    heap = objects[torch.randint(len(objects), (count,))]
    return heap + torch.randn(count, 4, dtype=dtype) * (heap[:, 2:] - heap[:, :2]).repeat(1, 2) / 8


def tiles(count, dtype):
    side = math.ceil(math.sqrt(count))
    place = torch.arange(count)
    corner = torch.stack([place % side, place // side], 1).to(dtype) * 8
    return torch.cat([corner, corner + 7], 1)


def far_away(count, dtype):
    """So far from the origin that a side has few digits left."""
    return uniform(count, dtype) / 300 + (1e6 if dtype == torch.float32 else 1e14)


def heap(count, dtype):
    return torch.tensor([[0.0, 0, 100, 100]], dtype=dtype) + torch.rand(count, 4, dtype=dtype) * 30


def equal(count, dtype):
    return uniform(7, dtype)[torch.randint(7, (count,))]


def tiny(count, dtype):
    """Areas that are subnormal or nearly so, and a few that are not."""
    boxes = uniform(count, dtype) * (1e-21 if dtype == torch.float32 else 1e-155)
    boxes[::3] *= 1e4
    return boxes


def huge(count, dtype):
    """Areas that overflow, or almost."""
    boxes = uniform(count, dtype) * (1e16 if dtype == torch.float32 else 1e151)
    boxes[::3] *= 100
    return boxes


def integers(count, dtype):
    """Overlaps that are simple fractions: many meet the threshold exactly."""
    corner = torch.randint(0, 60, (count, 2))
    return torch.cat([corner, corner + torch.randint(0, 9, (count, 2))], 1).to(dtype)


def odd(count, dtype):
    """A little of everything, NaN and infinite and inverted boxes too."""
    makers = [uniform, log_uniform, tiles, far_away, heap, equal, tiny, huge, integers]
    boxes = torch.cat([maker(count // len(makers) + 1, dtype) for maker in makers])
    boxes = boxes[torch.randperm(len(boxes))[:count]]
    boxes[::50, torch.randint(4, (1,))] = math.nan
    boxes[1::50, torch.randint(4, (1,))] = math.inf
    boxes[2::50] = boxes[2::50].flip(1)
    boxes[3::50, 2] = boxes[3::50, 0]
    return boxes


KINDS = [uniform, log_uniform, clusters, tiles, far_away, heap, equal, tiny, huge, integers, odd]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.8, 1.0])
def test_index_leaves_out_nothing(kind, dtype, threshold):
    boxes = kind(4000, dtype)
    scores = torch.rand(len(boxes)).mul(2000).round()  # many are equal
    expected = plain_sweep(boxes, scores, threshold)
    assert torch.equal(tilewright.nms(boxes, scores, threshold), expected)
    assert torch.equal(tilewright.nms(boxes, scores, threshold, 700), expected[:700])


@pytest.mark.parametrize("kind", [uniform, clusters])
def test_100_thousand_boxes(kind):
    boxes = kind(100_000, torch.float32)
    scores = torch.rand(len(boxes))
    expected = plain_sweep(boxes, scores, 0.5)
    for count in (1, 2, 3):
        assert torch.equal(threads(count, lambda: tilewright.nms(boxes, scores, 0.5)), expected)


@pytest.mark.parametrize("score_dtype", [torch.float32, torch.float64])
def test_classes_of_all_sizes(score_dtype):
    """One class for all threads, many for each of them, labels from the whole range of int64."""
    boxes = uniform(30_000, torch.float32)
    scores = torch.randn(30_000, dtype=score_dtype)
    labels = torch.tensor([-(2**63), -1, 0, 1, 2**40, 2**63 - 1])
    idxs = torch.where(torch.rand(30_000) < 0.5, 7, labels[torch.randint(len(labels), (30_000,))])
    kept = torch.cat(
        [
            of_class[plain_sweep(boxes[of_class], scores[of_class], 0.5)]
            for of_class in ((idxs == label).nonzero().squeeze(1) for label in idxs.unique())
        ]
    )
    expected = kept.sort().values
    expected = expected[torch.sort(scores[expected], descending=True, stable=True).indices]
    for count in (1, 2, 3):
        out = threads(count, lambda: tilewright.batched_nms(boxes, scores, idxs, 0.5))
        assert torch.equal(out, expected)
        out = threads(count, lambda: tilewright.batched_nms(boxes, scores, idxs, 0.5, 3000))
        assert torch.equal(out, expected[:3000])


@pytest.mark.parametrize("count", [1, 2, 3, 16, 299, 300, 301, 5000])
@pytest.mark.parametrize("score_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_order_of_scores(count, score_dtype):
    """Boxes far apart: what comes back is the order alone."""
    scores = torch.randn(count).mul(4).round().div(4).to(score_dtype)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, 1e-30, -1e-30]).to(score_dtype)
    where = torch.rand(count) < 0.4
    scores[where] = special[torch.randint(len(special), (int(where.sum()),))]
    expected = torch.sort(scores, descending=True, stable=True).indices
    assert torch.equal(tilewright.nms(tiles(count, torch.float32), scores, 0.5), expected)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa):
    """What this machine does not choose by itself; the tests above run what it does."""
    if tilewright._C.cpu_instruction_set() == "baseline":
        pytest.skip("this machine has only the baseline")
    script = """
import torch, test_nms_large, test_nms_rotated, test_soft_nms, test_soft_nms_gradients
for kind in test_nms_large.KINDS:
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        test_nms_large.test_index_leaves_out_nothing(kind, dtype, 0.5)
cpu = torch.device("cpu")
test_nms_rotated.test_index_leaves_out_nothing("uniform", 0.5)
for method in test_soft_nms.METHODS:
    test_soft_nms.test_soft_nms(cpu, method, 130)
    test_soft_nms_gradients.test_gradcheck(cpu, method)
print(test_nms_large.tilewright._C.cpu_instruction_set())
"""
    package = Path(tilewright.__file__).resolve().parent.parent / "build" / "python"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env={"TILEWRIGHT_ISA": isa, "TILEWRIGHT_DEVICE": "cpu", "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [isa]
