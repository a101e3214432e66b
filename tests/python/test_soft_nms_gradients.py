"""soft_nms: the gradients of its scores."""

import pytest
import reference_nms
import torch
from conftest import DTYPES
from reference_nms import METHODS
from samples import crowd, scattered

import tilewright

kernels = pytest.mark.kernels
orders = pytest.mark.orders


@pytest.mark.smoke
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
    torch.manual_seed(4)  # an input of which no decision is within rounding of another one
    boxes = scattered(70)[0].to(dtype)
    scores = ((torch.randperm(70) + 64) / 128).to(dtype)  # exact in every dtype
    margins = []

    def gradients(function, boxes, scores, *options, **leaf):
        leaves = [t.detach().to(**leaf).requires_grad_() for t in (boxes, scores)]
        keep, out = function(*leaves, 0.25, 0.5, 0.02, method, *options)
        weight = torch.arange(len(scores), dtype=out.dtype).cos().to(out.device)
        (out * weight[keep]).sum().backward()
        return [leaf.grad.cpu() if leaf.grad is not None else None for leaf in leaves], keep

    ours, keep = gradients(tilewright.soft_nms, boxes, scores, device=device)
    exact, expected = gradients(reference_nms.soft_nms, boxes, scores, margins, dtype=torch.float64)
    assert ours[0].dtype == dtype and ours[1].dtype == dtype
    assert min(margins) > 5e-5  # 70 factors of float32, each within a few ulp, err by less
    assert torch.equal(keep.cpu(), expected)
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
