"""deform_conv2d: numbers, gradients, layouts, torchvision, determinism."""

import pytest
import reference_deform
import torch
import torchvision as vision
from checks import assert_close_to_fp64, assert_same_bits
from conftest import DTYPES, MACHINE
from samples import layout, leaf
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders

# channels, outs, height, width, kernel, stride, padding, dilation, groups, offset groups
SHAPES = [
    (6, 5, 7, 9, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    (6, 4, 8, 7, (3, 2), (2, 1), (1, 2), (1, 2), 2, 1),
    (12, 6, 6, 6, (2, 3), (1, 2), (0, 1), (2, 1), 2, 3),  # groups across offset groups
    (8, 8, 5, 6, (1, 1), (1, 1), (0, 0), (1, 1), 8, 4),  # a channel a group
    (19, 21, 4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),  # multiples of no register
    (32, 8, 5, 4, (2, 2), (1, 1), (1, 1), (1, 1), 2, 2),  # channels in packs of 16 bytes
]


def problem(shape, batch=2, dtype=torch.float64, masked=True, seed=0):
    """(input, weight, offset, mask, bias) and the numbers behind them."""
    channels, outs, height, width, kernel, stride, padding, dilation, groups, og = shape
    g = torch.Generator().manual_seed(seed)

    def random(*sizes, scale=1.0):
        return (torch.randn(*sizes, generator=g, dtype=torch.float64) * scale).to(dtype)

    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    ]
    taps = og * kernel[0] * kernel[1]
    tensors = [
        random(batch, channels, height, width),
        random(outs, channels // groups, *kernel, scale=0.5),
        random(batch, 2 * taps, *sizes, scale=1.5),
        random(batch, taps, *sizes) if masked else None,
        random(outs) if masked else None,
    ]
    return tensors, (stride, padding, dilation, groups, og)


def call(tensors, numbers):
    return ops.deform_conv2d(*tensors, *numbers)


def grad_of(out, tensors, grad):
    """The gradients, None of tensors that are not there."""
    given = [t for t in tensors if t is not None]
    found = iter(torch.autograd.grad(out, given, grad))
    return [None if t is None else next(found) for t in tensors]


@pytest.mark.smoke
@kernels
@orders
@pytest.mark.parametrize(("masked", "channels_last"), [(True, False), (False, True)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward(device, shape, dtype, channels_last, masked):
    tensors, numbers = problem(shape, dtype=dtype, masked=masked)
    tensors[0] = layout(tensors[0], channels_last)
    ours = [None if t is None else leaf(t, device) for t in tensors]
    out = call(ours, numbers)
    assert out.dtype == dtype
    assert out.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    exact = [None if t is None else leaf(t.double()) for t in tensors]
    plain = [None if t is None else leaf(t) for t in tensors]
    expected = reference_deform.deform_conv2d(*exact, *numbers)
    composed = reference_deform.composed(*plain, *numbers)
    assert_close_to_fp64(out.cpu(), composed, expected)
    grad = layout(torch.randn(out.shape).to(dtype), channels_last)
    found = grad_of(out, ours, grad.to(device))
    wanted = grad_of(expected, exact, grad.double())
    measure = grad_of(composed, plain, grad)
    for a, b, c in zip(found, measure, wanted, strict=True):
        if a is not None:
            assert a.dtype == dtype
            assert_close_to_fp64(a.cpu(), b, c, gradient=True)


@kernels
@pytest.mark.parametrize("needed", [f"{i:05b}" for i in (0, 1, 2, 4, 8, 16, 9, 22)])
def test_each_gradient_alone(device, needed):
    tensors, numbers = problem(SHAPES[2])
    every = [leaf(t, device) for t in tensors]
    wanted = grad_of(call(every, numbers).sum(), every, None)
    needed = [digit == "1" for digit in needed]
    some = [leaf(t, device).requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
    if not any(needed):
        assert not call(some, numbers).requires_grad
        return
    call(some, numbers).sum().backward()
    for tensor, need, grad in zip(some, needed, wanted, strict=True):
        assert (tensor.grad is not None) == need
        if need:
            torch.testing.assert_close(tensor.grad, grad, rtol=1e-12, atol=1e-12)


@pytest.mark.unchecked
@kernels
@pytest.mark.parametrize("shape", SHAPES[1:4])
def test_gradcheck(device, shape):
    channels, outs, *rest = shape
    tensors, numbers = problem((channels, outs, 3, 4, *rest[2:]), batch=1)
    # Offsets away from whole coordinates, where derivatives by differences do not exist.
    tensors[2] = tensors[2].floor() + 0.2 + 0.6 * torch.rand_like(tensors[2])
    ours = [leaf(t, device) for t in tensors]
    # On the device sums of the input's gradient come in any order.
    assert gradcheck(lambda *t: call(t, numbers), ours, nondet_tol=1e-12)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_second_derivatives(shape):
    channels, outs, *rest = shape
    small = (channels, outs, 3, 4, *rest[2:])
    tensors, numbers = problem(small, batch=1)
    tensors[2] = tensors[2].floor() + 0.2 + 0.6 * torch.rand_like(tensors[2])
    ours = [leaf(t) for t in tensors]
    assert gradgradcheck(lambda *t: call(t, numbers), ours)


@kernels
@orders
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(device, dtype, another_order):
    size = 20 if device.type == "cuda" or MACHINE == "cpu" else 9
    tensors, numbers = problem((48, 40, size, 21, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1), batch=3)
    ours = [leaf(t.to(dtype), device) for t in tensors]

    def run():
        out = call(ours, numbers)
        return [out, *grad_of(out, ours, torch.ones_like(out))]

    assert_same_bits(run, (2, 3, 5) if MACHINE == "cpu" else (2,), another_order)


@kernels
def test_offsets_that_are_no_places(device):
    tensors, numbers = problem(SHAPES[0])
    offset = tensors[2]
    clean = offset.clone()
    for i, value in enumerate((float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e19)):
        offset[:, 2 * i + i % 2, i % 3] = value
        clean[:, 2 * i + i % 2, i % 3] = 1e6  # far outside
    ours, far = [leaf(t, device) for t in tensors], [leaf(t, device) for t in tensors]
    far[2] = leaf(clean, device)
    a, b = call(ours, numbers), call(far, numbers)
    assert torch.equal(a, b)
    for x, y in zip(
        grad_of(a, ours, torch.ones_like(a)), grad_of(b, far, torch.ones_like(b)), strict=True
    ):
        assert torch.isfinite(x).all()
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    moved = torch.autograd.grad(call(ours, numbers).sum(), ours[2])[0]
    assert (moved[~torch.isfinite(offset.to(device))] == 0).all()


@kernels
def test_the_slope_at_minus_one(device):
    # The map goes on as zeros: at -1 the surface begins to rise towards pixel 0. There the value is
    # 0 and the slope to the right is the pixel's value; torchvision's too, mmcv's is 0.
    x = torch.tensor([[[[3.0, 5.0]]]], dtype=torch.float64, device=device)
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64, device=device)
    for place, value, slope in ((-1.0, 0.0, 3.0), (0.0, 3.0, 2.0), (1.0, 5.0, -5.0), (2.0, 0, 0)):
        offset = torch.zeros(1, 2, 1, 2, dtype=torch.float64, device=device)
        offset[0, 1, 0] = torch.tensor([place, place - 1])
        offset.requires_grad_()
        out = ops.deform_conv2d(x, weight, offset)
        assert out.flatten().tolist() == [value, value]
        out.sum().backward()
        assert offset.grad[0, 1, 0].tolist() == [slope, slope]


@kernels
def test_pixels_that_weigh_nothing_do_not_count(device):
    x = torch.arange(12.0, device=device).reshape(1, 1, 3, 4)
    x[0, 0, 1, 2] = float("inf")
    weight = torch.ones(1, 1, 1, 1, device=device)
    out = ops.deform_conv2d(x, weight, torch.zeros(1, 2, 3, 4, device=device))
    assert torch.equal(out, x)  # as a convolution's


@kernels
def test_gradients_beside_pixels_that_weigh_nothing(device):
    # Taps look at every other pixel; those between, infinite, are corners of weight 0.
    x = torch.full((1, 2, 3, 5), float("inf"), device=device)
    x[:, :, ::2, ::2] = torch.arange(12.0, device=device).reshape(1, 2, 2, 3)
    weight = leaf(torch.ones(1, 2, 1, 1), device)
    mask = leaf(torch.ones(1, 1, 2, 3), device)
    offset = torch.zeros(1, 2, 2, 3, device=device)
    out = ops.deform_conv2d(x, weight, offset, mask, None, [2, 2])
    of_weight, of_mask = torch.autograd.grad(out.sum(), (weight, mask))
    seen = x[0, :, ::2, ::2]
    assert torch.equal(out[0, 0], seen.sum(0))
    assert torch.equal(of_mask[0, 0], seen.sum(0))
    assert torch.equal(of_weight.flatten(), seen.sum((1, 2)))


@kernels
def test_a_bias_without_a_mask(device):
    tensors, numbers = problem(SHAPES[0])
    tensors[3] = None
    ours = [None if t is None else leaf(t, device) for t in tensors]
    exact = [None if t is None else leaf(t) for t in tensors]
    found = grad_of(call(ours, numbers).square().sum(), ours, None)
    wanted = grad_of(reference_deform.composed(*exact, *numbers).square().sum(), exact, None)
    for a, b in zip(found, wanted, strict=True):
        if b is not None:
            torch.testing.assert_close(a.cpu(), b, rtol=1e-10, atol=1e-10)


@pytest.mark.no_launch
@kernels
def test_batch_of_none_and_maps_without_rows(device):
    tensors, numbers = problem(SHAPES[1], batch=0)
    ours = [leaf(t, device) for t in tensors]
    out = call(ours, numbers)
    assert out.shape[0] == 0
    grads = grad_of(out, ours, torch.ones_like(out))
    for grad, tensor in zip(grads, ours, strict=True):
        assert grad.shape == tensor.shape and (grad == 0).all()


def test_torchvision_in_float32():
    for shape in SHAPES:
        tensors, numbers = problem(shape, dtype=torch.float32)
        x, weight, offset, mask, bias = (leaf(t) for t in tensors)
        theirs = vision.ops.deform_conv2d(x, offset, weight, bias, *numbers[:3], mask)
        ours = tilewright.deform_conv2d(x, offset, weight, bias, *numbers[:3], mask)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        given = (x, weight, offset, mask, bias)
        grad = torch.randn(ours.shape)
        for a, b in zip(
            torch.autograd.grad(ours, given, grad),
            torch.autograd.grad(theirs, given, grad),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
