"""soft_nms: against a pair-at-a-time reference in fp64, gradients, odd boxes, bad calls."""

import math

import pytest
import reference_nms
import torch
from checks import assert_close_to_fp64, compile_and_run, opcheck, script_round_trip, threads
from conftest import DTYPES
from torch._subclasses import FakeTensorMode

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders
METHODS = ["gaussian", "linear", "hard"]


def crowd(count, dtype=torch.float32):
    """Overlapping boxes whose coordinates and scores every dtype holds exactly."""
    corner = torch.randint(0, 60, (count, 2))
    boxes = torch.cat([corner, corner + torch.randint(4, 60, (count, 2))], 1).to(dtype)
    scores = (torch.randperm(count).float() % 200 + 20) / 256
    return boxes, scores.to(dtype)


@kernels
@orders
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 130])
def test_soft_nms(device, method, count):
    boxes, scores = crowd(count, torch.float64)
    keep, out = tilewright.soft_nms(boxes.to(device), scores.to(device), 0.3, 0.5, 0.05, method)
    expected, values = reference_nms.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method)
    assert keep.dtype == torch.int64
    assert torch.equal(keep.cpu(), expected)
    assert_close_to_fp64(out.cpu(), None, values)


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_dtypes(device, dtype, method):
    boxes, scores = crowd(90, dtype)
    boxes, scores = boxes.to(device), scores.to(device)
    keep, out = tilewright.soft_nms(boxes, scores, 0.317, 0.5, 0.1, method)
    assert out.dtype == dtype
    expected, values = reference_nms.soft_nms(boxes.cpu(), scores.cpu(), 0.317, 0.5, 0.1, method)
    # Where two scores differ by less than rounding, fp32 may take them in another order.
    assert sorted(keep.tolist()) == sorted(expected.tolist())
    place = expected.argsort()[keep.cpu().argsort().argsort()]
    factor = 8 if dtype == torch.float32 else 1  # a product of many factors
    error = (out.cpu().double() - values[place]).abs().max()
    assert error <= factor * torch.finfo(dtype).eps, error


@kernels
def test_boxes_and_scores_of_different_dtypes(device):
    boxes, scores = crowd(50)
    expected = tilewright.soft_nms(boxes.to(device), scores.to(device))
    keep, out = tilewright.soft_nms(boxes.half().to(device), scores.to(device))
    assert torch.equal(keep, expected[0]) and torch.equal(out, expected[1])
    keep, out = tilewright.soft_nms(boxes.double().to(device), scores.bfloat16().to(device))
    assert out.dtype == torch.bfloat16


@kernels
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_hard_is_nms(device, threshold):
    boxes, scores = crowd(300)
    keep, out = tilewright.soft_nms(
        boxes.to(device), scores.to(device), threshold, min_score=0.0, method="hard"
    )
    assert torch.equal(keep, tilewright.nms(boxes.to(device), scores.to(device), threshold))
    assert torch.equal(out.cpu(), scores[keep.cpu()])


@kernels
def test_equal_scores(device):
    """Of equal scores the lower index is taken first."""
    boxes = torch.tensor([[0.0, 0, 1, 1]]) + torch.arange(1000.0)[:, None] * 2
    scores = torch.full((1000,), 0.5)
    scores[::7] = 0.75
    keep, _ = tilewright.soft_nms(boxes.to(device), scores.to(device))
    expected = torch.sort(scores, descending=True, stable=True).indices
    assert torch.equal(keep.cpu(), expected)


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


def scattered(count):
    """Boxes without equal coordinates, where overlaps have a derivative."""
    corner = torch.rand(count, 2, dtype=torch.float64) * 10
    side = torch.rand(count, 2, dtype=torch.float64) * 10 + 1
    return torch.cat([corner, corner + side], 1), torch.rand(count, dtype=torch.float64) + 0.5


@kernels
@orders
@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(device, method):
    boxes, scores = scattered(8)

    def out(boxes, scores):
        return tilewright.soft_nms(boxes, scores, 0.2, 0.5, 0.01, method)[1]

    leaves = boxes.to(device).requires_grad_(), scores.to(device).requires_grad_()
    assert torch.autograd.gradcheck(out, leaves)


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_gradients(device, dtype, method):
    boxes, scores = (t.to(dtype) for t in scattered(70))

    def gradients(function, boxes, scores, **leaf):
        leaves = [t.detach().to(**leaf).requires_grad_() for t in (boxes, scores)]
        keep, out = function(*leaves, 0.25, 0.5, 0.02, method)
        weight = torch.arange(len(scores), dtype=out.dtype).cos().to(out.device)
        (out * weight[keep]).sum().backward()
        return [leaf.grad.cpu() if leaf.grad is not None else None for leaf in leaves], keep

    ours, keep = gradients(tilewright.soft_nms, boxes, scores, device=device)
    exact, expected = gradients(reference_nms.soft_nms, boxes, scores, dtype=torch.float64)
    assert ours[0].dtype == dtype and ours[1].dtype == dtype
    if not torch.equal(keep.cpu(), expected):
        assert dtype != torch.float64  # fp32 took two in another order: nothing to compare
        return
    for mine, true in zip(ours, exact, strict=True):
        true = torch.zeros_like(mine, dtype=torch.float64) if true is None else true
        largest = true.abs().max().item()
        bound = 1e-12 if dtype == torch.float64 else 16 * torch.finfo(torch.float32).eps
        if dtype in (torch.bfloat16, torch.float16):
            bound = 2 * torch.finfo(dtype).eps  # rounded once: the sums are fp32
        assert (mine.double() - true).abs().max() <= bound * max(largest, 1)


@kernels
def test_equal_boxes_have_no_gradient_of_their_kink(device):
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 5, 5]]).to(device).requires_grad_()
    scores = torch.tensor([0.9, 0.8, 0.7]).to(device).requires_grad_()
    keep, out = tilewright.soft_nms(boxes, scores, 0.1, min_score=0.0, method="linear")
    assert keep.tolist() == [0, 2, 1]
    out.sum().backward()
    assert boxes.grad.isfinite().all() and scores.grad.isfinite().all()
    assert scores.grad[1] == 0 and scores.grad[0] == 1


def test_gradient_of_one_argument():
    boxes, scores = crowd(30)
    leaf = scores.clone().requires_grad_()
    tilewright.soft_nms(boxes, leaf)[1].sum().backward()
    assert leaf.grad.abs().sum() > 0
    leaf = boxes.clone().requires_grad_()
    tilewright.soft_nms(leaf, scores)[1].sum().backward()
    assert leaf.grad.abs().sum() > 0
    keep, out = tilewright.soft_nms(leaf, scores)
    assert not keep.requires_grad and out.requires_grad


def test_second_derivative_is_refused():
    boxes, scores = scattered(8)
    leaf = scores.requires_grad_()
    out = tilewright.soft_nms(boxes, leaf)[1]
    (grad,) = torch.autograd.grad(out.sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="tilewright::soft_nms: has no second derivative"):
        grad.sum().backward()


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


@pytest.mark.parametrize("method", METHODS)
def test_same_bits_for_any_number_of_threads(method):
    """More than one block of scores, and boxes thrown out on the way."""
    corner = torch.rand(70_000, 2) * 2000
    boxes = torch.cat([corner, corner + torch.rand(70_000, 2) * 300], 1).requires_grad_()
    scores = torch.rand(70_000)

    def run():
        keep, out = tilewright.soft_nms(boxes, scores, 0.3, 0.2, 0.93, method)
        return keep, out, torch.autograd.grad(out.sum(), boxes)[0]

    one = threads(1, run)
    assert len(one[0]) > 100
    for count in (2, 3):
        for a, b in zip(one, threads(count, run), strict=True):
            assert torch.equal(a, b)


@kernels
def test_layouts(device):
    boxes, scores = crowd(60)
    expected = tilewright.soft_nms(boxes.to(device), scores.to(device))
    turned = boxes.t().contiguous().to(device).t()
    strided = torch.stack([scores, scores], 1).to(device)[:, 0]
    for a, b in zip(tilewright.soft_nms(turned, strided), expected, strict=True):
        assert torch.equal(a, b)


@kernels
def test_autocast_keeps_the_dtypes(device):
    boxes, scores = crowd(40)
    expected = tilewright.soft_nms(boxes.to(device), scores.to(device))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        keep, out = tilewright.soft_nms(boxes.to(device), scores.to(device))
    assert out.dtype == torch.float32
    assert torch.equal(keep, expected[0]) and torch.equal(out, expected[1])


@kernels
@pytest.mark.parametrize("method", METHODS)
def test_opcheck(device, method):
    boxes, scores = (t.float().to(device) for t in scattered(12))
    opcheck(ops.soft_nms.default, (boxes, scores, 0.3, 0.5, 0.01, method))
    leaves = boxes.clone().requires_grad_(), scores.clone().requires_grad_()
    # Without the check that adds up all results, in the integer type of the first; what it checks
    # is held by test_trains_through_compile.
    torch.library.opcheck(
        ops.soft_nms.default,
        (*leaves, 0.3, 0.5, 0.01, method),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
    keep, out = tilewright.soft_nms(boxes, scores, method=method)
    opcheck(
        ops._soft_nms_backward.default,
        (torch.ones_like(out), boxes, scores, keep, 0.3, 0.5, method),
    )


def soften(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    keep, out = tilewright.soft_nms(boxes, scores, 0.3, 0.5, 0.01, "linear")
    return boxes[keep] * out[:, None]


@kernels
def test_script_export_compile(device):
    args = tuple(t.to(device) for t in crowd(40))
    expected = soften(*args)
    assert torch.equal(script_round_trip(soften, *args), expected)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert torch.equal(compile_and_run(soften, *args), expected)

    class Module(torch.nn.Module):
        def forward(self, boxes, scores):
            return soften(boxes, scores)

    program = torch.export.export(Module(), args)
    other = tuple(t.to(device) for t in crowd(40))
    assert torch.equal(program.module()(*other), soften(*other))


@kernels
def test_trains_through_compile(device):
    boxes, scores = (t.float().to(device) for t in scattered(20))
    leaf, other = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    soften(boxes, leaf).sum().backward()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compile_and_run(soften, boxes, other).sum().backward()
    assert torch.equal(leaf.grad, other.grad)
