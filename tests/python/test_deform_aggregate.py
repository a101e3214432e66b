"""deform_aggregate: numbers against references, gradients, determinism."""

import pytest
import reference_aggregate
import torch
from aggregate_cases import SHAPES, call, problem
from checks import assert_close_to_fp64, assert_same_bits
from conftest import DTYPES, MACHINE
from samples import leaf
from torch.autograd import gradcheck, gradgradcheck

import tilewright

kernels = pytest.mark.kernels
orders = pytest.mark.orders


@pytest.mark.smoke
@kernels
@orders
@pytest.mark.parametrize(
    ("dtype", "beside"),
    [(dtype, dtype) for dtype in DTYPES] + [(dtype, torch.float32) for dtype in DTYPES[2:]],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward(device, shape, dtype, beside):
    """`beside`: the dtype of offsets and masks."""
    tensors, numbers = problem(shape, dtype=beside)
    tensors[0] = tensors[0].to(dtype)
    ours = [leaf(t, device) for t in tensors]
    out = call(ours, numbers)
    assert out.dtype == dtype and out.is_contiguous()
    exact = [leaf(t.double()) for t in tensors]
    # The composition rounds nothing to 16 bits: a stricter measure than one that does.
    plain = [leaf(t.to(torch.promote_types(dtype, torch.float32))) for t in tensors]
    expected = reference_aggregate.deform_aggregate(*exact, *numbers)
    composed = reference_aggregate.composed(*plain, *numbers)
    assert_close_to_fp64(out.cpu(), composed, expected)
    grad = torch.randn(out.shape).to(dtype)
    found = torch.autograd.grad(out, ours, grad.to(device))
    wanted = torch.autograd.grad(expected, exact, grad.double())
    measure = torch.autograd.grad(composed, plain, grad.to(composed.dtype))
    for a, b, c, given in zip(found, measure, wanted, tensors, strict=True):
        assert a.dtype == given.dtype
        assert_close_to_fp64(a.cpu(), b, c, gradient=True)


@kernels
@pytest.mark.parametrize("needed", [f"{i:03b}" for i in range(8)])
def test_each_gradient_alone(device, needed):
    tensors, numbers = problem(SHAPES[2])
    every = [leaf(t, device) for t in tensors]
    wanted = torch.autograd.grad(call(every, numbers).sum(), every)
    needed = [digit == "1" for digit in needed]
    some = [leaf(t, device).requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
    out = call(some, numbers)
    assert out.requires_grad == any(needed)
    if any(needed):
        out.sum().backward()
    for tensor, need, grad in zip(some, needed, wanted, strict=True):
        assert (tensor.grad is not None) == need
        if need:
            torch.testing.assert_close(tensor.grad, grad, rtol=1e-12, atol=1e-12)


@pytest.mark.unchecked
@kernels
@pytest.mark.parametrize("shape", SHAPES[:4])
def test_gradcheck(device, shape):
    channels, _, _, *rest = shape
    tensors, numbers = problem((channels, 3, 4, *rest), batch=1)
    ours = [leaf(t, device) for t in tensors]
    # On the device sums of the input's gradient come in any order.
    assert gradcheck(lambda *t: call(t, numbers), ours, nondet_tol=1e-12)


@pytest.mark.parametrize("shape", SHAPES[2:5])
def test_second_derivatives(shape):
    channels, _, _, *rest = shape
    tensors, numbers = problem((channels, 3, 4, *rest), batch=1)
    assert gradgradcheck(lambda *t: call(t, numbers), [leaf(t) for t in tensors])


def test_second_derivatives_have_the_first_ones():
    """Of both ways to the gradients, at places where derivatives jump as well."""
    tensors, numbers = problem(SHAPES[2])
    tensors[1][:, ::2] = tensors[1][:, ::2].round()
    tensors[1][0, 0, 0, :4] = torch.tensor([float("nan"), float("inf"), 1e30, -1e19])
    ours = [leaf(t) for t in tensors]
    grad = torch.randn(call(ours, numbers).shape, dtype=torch.float64)
    kernel = torch.autograd.grad(call(ours, numbers), ours, grad)
    composite = torch.autograd.grad(call(ours, numbers), ours, grad, create_graph=True)
    for a, b in zip(kernel, composite, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@kernels
@orders
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(device, dtype, another_order):
    size = 20 if device.type == "cuda" or MACHINE == "cpu" else 9
    shape = (48, size, 21, (3, 3), (1, 1), (1, 1), (1, 1), 2, 1.0)
    tensors, numbers = problem(shape, batch=3, dtype=dtype)
    ours = [leaf(t, device) for t in tensors]

    def run():
        out = call(ours, numbers)
        return [out, *torch.autograd.grad(out, ours, torch.ones_like(out))]

    assert_same_bits(run, (2, 3, 5) if MACHINE == "cpu" else (2,), another_order)


@kernels
def test_deterministic_sums_are_the_sums(device):
    tensors, numbers = problem(SHAPES[1], dtype=torch.float32)
    ours = [leaf(t, device) for t in tensors]
    grad = torch.randn(call(ours, numbers).shape, device=device)
    grad[1, 0, 0, :3] = torch.tensor([float("inf"), float("nan"), 0])
    found = torch.autograd.grad(call(ours, numbers), ours, grad)
    torch.use_deterministic_algorithms(True)
    try:
        fixed = torch.autograd.grad(call(ours, numbers), ours, grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found[0].isfinite(), fixed[0].isfinite())
    assert not found[0].isfinite().all()
    there = found[0].isfinite()
    torch.testing.assert_close(found[0][there], fixed[0][there], rtol=1e-5, atol=1e-5)


@pytest.mark.large
def test_more_elements_than_31_bits_count():
    image = torch.zeros(1, 2100, 2100, 500, dtype=torch.float16)
    image[0, -1, -1] = 1
    offset, mask = torch.full((1, 1, 1, 2), 2099.0), torch.ones(1, 1, 1, 1)
    last = tilewright.deform_aggregate(image, offset, mask, 1, stride=2100)
    assert last.shape == (1, 1, 1, 500) and (last == 1).all()
