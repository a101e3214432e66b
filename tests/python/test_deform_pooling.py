"""deform_roi_pool and deform_ps_roi_pool: numbers, gradients, layouts, determinism, odd values."""

import math

import pytest
import reference_deform_pooling as reference
import torch
from checks import assert_close_to_fp64, assert_same_bits
from conftest import DTYPES, MACHINE
from deform_pooling_cases import pooled, problem, ps_problem, roi_problem
from samples import layout, leaf
from torch.autograd import gradcheck, gradgradcheck

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


def gradients(out, tensors, grad):
    return torch.autograd.grad(out, tensors, grad)


@pytest.mark.smoke
@kernels
@orders
@pooled
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward(device, name, dtype, channels_last):
    operator, definition, (x, rois, offset, numbers) = problem(name, dtype)
    x = layout(x, channels_last)
    ours = leaf(x, device), leaf(offset, device)
    out = operator(ours[0], rois.to(device), ours[1], *numbers)
    assert out.dtype == dtype
    form = torch.channels_last if channels_last else torch.contiguous_format
    assert out.is_contiguous(memory_format=form)
    exact = leaf(x.double()), leaf(offset.double())
    expected = definition(exact[0], rois.double(), exact[1], *numbers)
    largest = x.abs().max().item()
    assert_close_to_fp64(out.cpu(), None, expected, terms=largest, part=1e-6)
    grad = layout(torch.randn(out.shape).to(dtype), channels_last)
    found = gradients(out, ours, grad.to(device))
    wanted = gradients(expected, exact, grad.double())
    for got, right in zip(found, wanted, strict=True):
        assert got.dtype == dtype
        # Places are float32 there: a slope changes where rounding moves a sample over a pixel.
        part = 0 if dtype == torch.float64 else 1e-4
        assert_close_to_fp64(
            got.cpu(), None, right, gradient=True, terms=right.abs().max().item(), part=part
        )


@kernels
@pooled
def test_each_gradient_alone(device, name):
    operator, _, (x, rois, offset, numbers) = problem(name)
    both = leaf(x, device), leaf(offset, device)
    rois = rois.to(device)
    wanted = gradients(operator(both[0], rois, both[1], *numbers).sum(), both, None)
    only_input = gradients(
        operator(both[0], rois, both[1].detach(), *numbers).sum(), both[:1], None
    )
    only_offset = gradients(
        operator(both[0].detach(), rois, both[1], *numbers).sum(), both[1:], None
    )
    for alone, beside in zip(only_input + only_offset, wanted, strict=True):
        torch.testing.assert_close(alone, beside, rtol=1e-12, atol=1e-12)


@pytest.mark.unchecked
@kernels
@pytest.mark.parametrize("name", ["sampled", "of classes"])
def test_gradcheck(device, name):
    operator, _, (x, rois, offset, numbers) = problem(name, boxes=2)
    x, offset = leaf(x[:, :, :5, :6], device), leaf(offset, device)
    rois = rois.to(device)
    # On the device sums of the input's gradient come in any order.
    assert gradcheck(lambda x, o: operator(x, rois, o, *numbers), (x, offset), nondet_tol=1e-12)


@pytest.mark.parametrize("name", ["sampled", "a sample a pixel", "of classes"])
def test_second_derivatives(name):
    operator, _, (x, rois, offset, numbers) = problem(name, boxes=2)
    rois[-1, 1] = math.nan  # pools nothing
    x = x[:, :16, :3, :4] if "classes" in name else x[:, :2, :3, :4]
    assert gradgradcheck(
        lambda x, o: operator(x, rois, o, *numbers), (leaf(x), leaf(offset)), atol=1e-4
    )


@pooled
def test_composite_has_the_kernels_gradients(name):
    operator, _, (x, rois, offset, numbers) = problem(name)
    tensors = leaf(x), leaf(offset)
    out = operator(tensors[0], rois, tensors[1], *numbers).square().sum()
    plain = torch.autograd.grad(out, tensors, retain_graph=True)
    twice = torch.autograd.grad(out, tensors, create_graph=True)
    torch.testing.assert_close(plain, twice, rtol=1e-10, atol=1e-10)


@kernels
@orders
@pooled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_number_of_threads(device, name, dtype, another_order):
    operator, _, (x, rois, offset, numbers) = problem(name, dtype, boxes=20)
    x, offset, rois = leaf(x, device), leaf(offset, device), rois.to(device)

    def run():
        out = operator(x, rois, offset, *numbers)
        return [out, *gradients(out.sin().sum(), (x, offset), None)]

    assert_same_bits(run, (2, 3) if MACHINE == "cpu" else (2,), another_order)


@kernels
def test_without_moves_it_is_roi_align(device):
    x, rois, offset, numbers = roi_problem("sampled", torch.float32)
    x, rois = x.to(device), rois.to(device)
    still = torch.zeros_like(offset, device=device)
    scale, height, width, ratio, _ = numbers
    expected = ops.roi_align(x, rois, scale, height, width, ratio, True)
    torch.testing.assert_close(ops.deform_roi_pool(x, rois, still, *numbers), expected)
    none = ops.deform_roi_pool(x, rois, None, *numbers)
    assert torch.equal(none, expected)


@kernels
def test_none_moves_nothing_in_the_position_sensitive_form(device):
    x, rois, offset, numbers = ps_problem("of classes", torch.float32)
    x, rois = x.to(device), rois.to(device)
    still = torch.zeros_like(offset, device=device)
    assert torch.equal(
        ops.deform_ps_roi_pool(x, rois, None, *numbers),
        ops.deform_ps_roi_pool(x, rois, still, *numbers),
    )


@kernels
def test_by_hand(device):
    """A ramp of 10 y + x: a bin's mean is where its samples' middle lies."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    x = (10 * rows + columns)[None, None].to(device).requires_grad_()
    rois = torch.tensor([[0, 1.0, 2.0, 5.0, 6.0]], device=device)  # 4 x 4 pixels
    offset = torch.zeros(1, 2, 1, 1, device=device)
    offset[0, 0], offset[0, 1] = 1.0, -2.0  # 0.4 pixels to the right, 0.8 up
    offset.requires_grad_()
    out = ops.deform_roi_pool(x, rois, offset, 1.0, 1, 1, 2, 0.1)
    # The middle without moves: x 1 - 0.5 + 2 = 2.5, y 3.5.
    assert out.item() == pytest.approx(10 * (3.5 - 0.8) + 2.5 + 0.4, abs=1e-4)
    out.backward()
    # 4 pixels of width times gamma times the ramp's slope.
    torch.testing.assert_close(offset.grad.flatten().cpu(), torch.tensor([0.4, 4.0]))
    # R-FCN's rule: corners 0.5 to 5.5 (x) and 1.5 to 6.5: samples at a corner and its middle.
    ps = ops.deform_ps_roi_pool(x.detach(), rois, offset.detach(), 1.0, 1, 1, 1, 1, 2, 0.1)
    moved_x, moved_y = 0.5 + 1.25 + 0.5, 1.5 + 1.25 - 1.0
    assert ps.item() == pytest.approx(10 * moved_y + moved_x, abs=1e-4)


@kernels
def test_samples_outside_count_as_zeros_or_not_at_all(device):
    x = torch.ones(1, 1, 4, 4, device=device)
    rois = torch.tensor([[0, -4.0, 0.0, 3.0, 3.0]], device=device)
    still = torch.zeros(1, 2, 1, 1, device=device)
    aligned = ops.deform_roi_pool(x, rois, still, 1.0, 1, 1, 4, 0.1)
    assert 0 < aligned.item() < 0.75
    assert ops.deform_ps_roi_pool(x, rois, still, 1.0, 1, 1, 1, 1, 4, 0.1).item() == 1
    away = rois + torch.tensor([0, 100.0, 0, 100, 0], device=device)
    assert ops.deform_ps_roi_pool(x, away, still, 1.0, 1, 1, 1, 1, 4, 0.1).item() == 0


@kernels
@pooled
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_offsets_that_are_no_places(device, name, value):
    operator, _, (x, rois, offset, numbers) = problem(name, torch.float32)
    spoilt = offset.clone()
    spoilt[0] = value
    tensors = leaf(x, device), leaf(spoilt, device)
    out = operator(tensors[0], rois.to(device), tensors[1], *numbers)
    clean = operator(x.to(device), rois.to(device), offset.to(device), *numbers)
    assert torch.equal(out[1:], clean[1:])
    assert (out[0] == 0).all()
    grad_input, grad_offset = gradients(out.sum(), tensors, None)
    assert grad_input.isfinite().all()
    assert (grad_offset[0] == 0).all()


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [2, 4])
def test_boxes_that_begin_with_the_image(device, dtype, samples):
    """Their first samples lie half a pixel outside of the map exactly, and count."""
    x = torch.randn(1, 3 * 9, 40, 50, dtype=torch.float64)
    sides = torch.randint(20, 600, (40, 4)).double()
    rois = torch.zeros(40, 5, dtype=torch.float64)
    rois[:, 3:] = sides[:, 2:]
    rois[20:, 1:3] = sides[20:, :2].clamp(max=300)
    rois[20:, 3:] += rois[20:, 1:3]
    numbers = (1 / 16, 3, 3, 3, 3, samples, 0.1)
    still = torch.zeros(40, 2, 3, 3, dtype=torch.float64)
    expected = reference.deform_ps_roi_pool(x, rois, still, *numbers)
    given = (t.to(device, dtype) for t in (x, rois, still))
    found = ops.deform_ps_roi_pool(*given, *numbers)
    limit = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found.double().cpu(), expected, rtol=limit, atol=limit)


@kernels
def test_pixels_that_no_sample_reads_are_no_part_of_gradients(device):
    x = torch.randn(1, 2, 40, 40, device=device)
    x[:, :, 8, 8] = torch.inf  # between the samples of a bin of 10 x 10 pixels, two an axis
    offset = torch.zeros(1, 2, 2, 2, device=device, requires_grad=True)
    rois = torch.tensor([[0, 3.5, 3.5, 23.5, 23.5]], device=device)
    x.requires_grad_()
    out = ops.deform_roi_pool(x, rois, offset, 1.0, 2, 2, 2)
    assert out.isfinite().all()
    grads = gradients(out.sum(), (x, offset), None)
    assert all(grad.isfinite().all() for grad in grads)


@kernels
def test_reproducible_sums_have_room(device):
    """Many samples of a bin on the only pixel."""
    x = torch.ones(1, 1, 1, 1, device=device, requires_grad=True)
    rois = torch.tensor([[0, -0.68, -0.68, 1.62, 1.62]], device=device)
    offset = torch.zeros(1, 2, 1, 1, device=device)
    torch.use_deterministic_algorithms(True)
    try:
        out = ops.deform_roi_pool(x, rois, offset, 1.0, 1, 1, -1)
        out.backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert x.grad.item() == pytest.approx(out.item(), abs=1e-6)


@kernels
@pooled
def test_boxes_that_are_no_boxes(device, name):
    operator, _, (x, rois, offset, numbers) = problem(name, torch.float32)
    rois[0, 3], rois[1, 2] = math.nan, math.inf
    x, offset = leaf(x, device), leaf(offset, device)
    out = operator(x, rois.to(device), offset, *numbers)
    assert (out[:2] == 0).all()
    assert out[2:].isfinite().all()
    assert (gradients(out.sum(), (x, offset), None)[1][:2] == 0).all()


@pytest.mark.no_launch
@kernels
@pooled
def test_nothing_to_pool(device, name):
    operator, _, (x, rois, offset, numbers) = problem(name, torch.float32)
    x, offset = leaf(x, device), leaf(offset[:0], device)
    out = operator(x, rois[:0].to(device), offset, *numbers)
    assert out.shape[0] == 0
    for again in (False, True):
        grad_input, grad_offset = torch.autograd.grad(
            out.sum(), (x, offset), retain_graph=True, create_graph=again
        )
        assert (grad_input == 0).all()
        assert grad_offset.shape == offset.shape


@kernels
@pooled
def test_strided_tensors(device, name):
    operator, _, (x, rois, offset, numbers) = problem(name, torch.float32)
    expected = operator(x.to(device), rois.to(device), offset.to(device), *numbers)
    wide = torch.stack([x, x], -1).to(device)[..., 0]
    boxes = torch.stack([rois, rois], -1).to(device)[..., 0]
    moves = torch.stack([offset, offset], -1).to(device)[..., 0]
    torch.testing.assert_close(operator(wide, boxes, moves, *numbers), expected)
