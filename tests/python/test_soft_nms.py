"""soft_nms: against a pair-at-a-time reference in fp64, layouts, exports."""

import pytest
import reference_nms
import torch
from checks import assert_close_to_fp64, compile_and_run, opcheck, script_round_trip, threads
from conftest import DTYPES
from reference_nms import METHODS
from samples import crowd, scattered

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


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


@pytest.mark.smoke
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
