"""roi_pool, ps_roi_align and ps_roi_pool: numbers, gradients, layouts, torchvision, determinism."""

import compositions
import pytest
import reference_pooling as reference
import torch
from checks import NoSynchronisation, assert_close_to_fp64, threads
from conftest import DTYPES, MACHINE
from samples import layout, leaf, random_rois
from torch.autograd import gradcheck, gradgradcheck

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders

# name -> arguments after the bins.
CASES = [("roi_pool", ()), ("ps_roi_pool", ()), ("ps_roi_align", (2,)), ("ps_roi_align", (-1,))]
every_op = pytest.mark.parametrize("name,extra", CASES)


def channels_of(name, outputs, bins):
    return outputs if name == "roi_pool" else outputs * bins


def run(name, input, rois, scale, size, extra=()):
    return getattr(ops, name)(input, rois, scale, *size, *extra)


def expected_of(name, input, rois, scale, size, extra=()):
    result = getattr(reference, name)(input, rois, scale, *size, *extra)
    return result[0] if name == "roi_pool" else result


def rois_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


@kernels
@orders
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@every_op
def test_forward_and_backward(device, dtype, name, extra, channels_last):
    # 19 or 45 channels and 5 x 3 bins are multiples of no tile and no register.
    channels = channels_of(name, 19 if name == "roi_pool" else 3, 15)
    x = layout(torch.randn(2, channels, 17, 23).to(dtype), channels_last)
    rois = random_rois(7, 17, 23, 0.5, 2, rois_dtype(dtype))
    ours, exact = leaf(x, device), leaf(x.double())
    out = run(name, ours, rois.to(device), 0.5, (5, 3), extra)[0]
    assert out.dtype == dtype
    assert out.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    expected = expected_of(name, exact, rois, 0.5, (5, 3), extra)
    grad = layout(torch.randn(expected.shape).to(dtype), channels_last)
    out.backward(grad.to(device))
    expected.backward(grad.double())
    composed, plain = getattr(compositions, name)(x, rois, 0.5, 5, 3, *extra, grad=grad)
    assert_close_to_fp64(out.cpu(), composed, expected)
    assert_close_to_fp64(ours.grad.cpu(), plain, exact.grad, gradient=True)


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_argmax_is_the_first_greatest_pixel(device, dtype):
    # Few values, so that bins have ties; some infinite.
    x = torch.randint(-2, 3, (2, 18, 14, 21)).to(dtype)
    x[x == 2] = torch.inf
    x[0, :, :6] = -torch.inf
    rois = random_rois(9, 14, 21, 1.0, 2, rois_dtype(dtype))
    expected, pixels = reference.roi_pool(x, rois, 1.0, 4, 3)
    for channels_last in (False, True):
        out, argmax = ops.roi_pool(layout(x, channels_last).to(device), rois.to(device), 1.0, 4, 3)
        assert torch.equal(argmax.cpu(), pixels)
        assert torch.equal(out.cpu().double(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bins_taller_than_the_window(device, dtype):
    # The window of packed rows is limited to 16 MiB: 900 rows of 800 pixels need more. The second
    # box's bins fit, the third's columns miss the map.
    x = torch.randn(1, 17, 900, 800).to(dtype)
    x[0, 3, 650, 20] = torch.nan
    rois = torch.tensor([[0.0, 0, 0, 799, 899], [0, 5, 90, 60, 110], [0, 900, 0, 999, 890]])
    out, argmax = ops.roi_pool(x.to(device), rois.to(device), 1.0, 1, 2)
    expected, pixels = reference.roi_pool(x, rois, 1.0, 1, 2)
    assert torch.equal(argmax.cpu(), pixels)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=0, atol=0, equal_nan=True)


@kernels
@pytest.mark.parametrize("name", ["ps_roi_pool", "ps_roi_align"])
def test_channel_mapping(device, name):
    _, mapping = run(name, torch.zeros(1, 24, 5, 5).to(device), ROI.to(device), 1.0, (2, 3))
    assert mapping.dtype == torch.int32
    assert torch.equal(mapping.cpu(), torch.arange(24, dtype=torch.int32).view(1, 4, 2, 3))


ROI = torch.tensor([[0.0, 1, 1, 4, 4]])


@kernels
@pytest.mark.parametrize("channels", [1, 7, 16, 33, 64, 70, 130])
def test_channel_counts(device, channels):
    x, rois = torch.randn(1, channels, 9, 40), random_rois(5, 9, 40)
    for name, extra in CASES:
        inputs = x if name == "roi_pool" else torch.cat([x, x + 1], 1)
        size = (2, 2) if name == "roi_pool" else (2, 1)
        expected = expected_of(name, inputs, rois, 1.0, size, extra)
        for channels_last in (False, True):
            out = run(
                name, layout(inputs, channels_last).to(device), rois.to(device), 1.0, size, extra
            )[0]
            torch.testing.assert_close(out.cpu().double(), expected, rtol=0, atol=1e-4)


@kernels
@every_op
def test_wide_boxes_and_narrow_maps(device, name, extra):
    # Longer than a register and than the samples on it, and narrower than a register.
    for height, width in ((4, 700), (40, 3), (1, 1)):
        x = torch.randn(1, 12, height, width, dtype=torch.float64)
        rois = random_rois(6, height, width, dtype=torch.float64)
        ours, exact = leaf(x, device), leaf(x)
        out = run(name, ours, rois.to(device), 1.0, (2, 3), extra)[0]
        expected = expected_of(name, exact, rois, 1.0, (2, 3), extra)
        assert_close_to_fp64(out.cpu(), None, expected)
        out.sum().backward()
        expected.sum().backward()
        assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@kernels
@every_op
def test_many_boxes(device, name, extra):
    """More than a piece, a plan or a batch of boxes holds; boxes in any order of images."""
    count = 600 if MACHINE == "cpu" else 200
    x = torch.randn(3, 8, 10, 12, dtype=torch.float64)
    rois = random_rois(count, 10, 12, 1.0, 3, torch.float64)
    ours, exact = leaf(x, device), leaf(x)
    out = run(name, ours, rois.to(device), 1.0, (2, 2), extra)[0]
    expected = expected_of(name, exact, rois, 1.0, (2, 2), extra)
    assert_close_to_fp64(out.cpu(), None, expected)
    grad = torch.randn_like(expected)
    out.backward(grad.to(device))
    expected.backward(grad)
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@pytest.mark.smoke
@kernels
@every_op
def test_more_bins_than_pixels(device, name, extra):
    x = torch.randn(1, 35 * 2, 6, 6, dtype=torch.float64)
    rois = torch.tensor([[0, 1.0, 1, 4, 3], [0, 2, 2, 2.2, 2.2]], dtype=torch.float64)
    ours, exact = leaf(x, device), leaf(x)
    out = run(name, ours, rois.to(device), 1.0, (7, 5), extra)[0]
    expected = expected_of(name, exact, rois, 1.0, (7, 5), extra)
    assert_close_to_fp64(out.cpu(), None, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@kernels
@every_op
def test_non_contiguous_input_and_grad(device, name, extra):
    x = torch.randn(2, 16, 23, 6, dtype=torch.float64).to(device).permute(0, 3, 1, 2)[:, :, ::2]
    rois = random_rois(3, 8, 23, dtype=torch.float64).to(device)
    ours = x.detach().requires_grad_()  # keeps its strides
    out = run(name, ours, rois, 1.0, (2, 3), extra)[0]
    exact = leaf(x.cpu())
    expected = expected_of(name, exact, rois.cpu(), 1.0, (2, 3), extra)
    assert_close_to_fp64(out.cpu(), None, expected)
    out.sum().backward()  # an expanded gradient
    expected.sum().backward()
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@kernels
@every_op
def test_gradient_of_another_layout(device, name, extra):
    x = layout(torch.randn(1, 12, 7, 9, dtype=torch.float64), True)
    rois = random_rois(4, 7, 9, dtype=torch.float64)
    ours, exact = leaf(x, device), leaf(x)
    out = run(name, ours, rois.to(device), 1.0, (2, 3), extra)[0]
    expected = expected_of(name, exact, rois, 1.0, (2, 3), extra)
    grad = torch.randn(expected.shape, dtype=torch.float64)  # contiguous
    out.backward(grad.to(device))
    expected.backward(grad)
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@kernels
@pytest.mark.parametrize("channels_last", [False, True])
@every_op
def test_gradcheck(device, name, extra, channels_last):
    x = layout(torch.randn(2, 6, 6, 7, dtype=torch.float64), channels_last).to(device)
    x.requires_grad_()
    rois = random_rois(3, 6, 7, 1.0, 2, torch.float64).to(device)

    def pool(x):
        return run(name, x, rois, 1.0, (2, 3), extra)[0]

    assert gradcheck(pool, (x,))
    assert gradgradcheck(pool, (x,))


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_op
def test_same_bits_for_any_number_of_threads(device, dtype, name, extra):
    for channels_last in (False, True):
        x = layout(torch.randn(2, 98, 30, 30).to(dtype), channels_last).to(device)
        rois = random_rois(40, 30, 30, 1.0, 2).to(device)

        def both(x=x, rois=rois):
            leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
            out = run(name, leaf, rois, 1.0, (7, 7), extra)[0]
            out.float().square().sum().backward()
            return out.detach(), leaf.grad

        one, two = threads(1, both), threads(2, both)
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


@kernels
@every_op
def test_deterministic_backward(device, another_order, name, extra):
    x = torch.randn(1, 18, 20, 20).to(device).requires_grad_()
    rois = random_rois(40, 20, 20).to(device)
    grads = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            another_order()
            out = run(name, x, rois, 1.0, (3, 3), extra)[0]
            grads.append(torch.autograd.grad(out.square().sum(), x)[0])
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@kernels
@pytest.mark.skipif(MACHINE == "cpu", reason="a promise of the CUDA code")
@every_op
def test_nothing_synchronises(device, name, extra):
    x = torch.randn(1, 12, 16, 16).to(device).requires_grad_()
    rois = random_rois(5, 16, 16).to(device)
    with NoSynchronisation():
        run(name, x, rois, 1.0, (2, 3), extra)[0].sum().backward()


@kernels
@every_op
def test_backward_is_the_transpose(device, name, extra):
    """<forward(x), g> = <x, backward(g)>, where torchvision's ps_roi_pool spreads over pixels that
    its forward leaves out."""
    width, height = 61, 5
    border = random_rois(40, height, width)
    border[:20, 3] = width + 0.5
    border[20:, 1] = -0.5
    tiny = random_rois(40, height, width)
    tiny[:, 3:] = tiny[:, 1:3] + torch.rand(40, 2) * 1e-4
    x = torch.rand(1, 21, height, width)
    for rois in (border, tiny):
        ours = leaf(x, device)
        out = run(name, ours, rois.to(device), 1.0, (3, 7), extra)[0]
        grad = torch.rand_like(out)
        out.backward(grad)
        forward = (out.double() * grad.double()).sum().item()
        transposed = (ours.double() * ours.grad.double()).sum().item()
        assert transposed == pytest.approx(forward, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torchvision_agrees(dtype):
    """On boxes of all sizes; what differs is in test_roi_pooling_bad_input.py."""
    vision = pytest.importorskip("torchvision")
    theirs = torch.ops.torchvision
    assert vision is not None
    x = torch.randn(2, 70, 30, 40, dtype=dtype)
    rois = random_rois(60, 30, 40, 0.3, 2, dtype)
    for name, extra in CASES:
        out, second = run(name, x, rois, 0.3, (7, 5), extra)
        expected, their_second = getattr(theirs, name)(x, rois, 0.3, 7, 5, *extra)
        torch.testing.assert_close(out, expected, rtol=0, atol=2e-5)
        assert torch.equal(second, their_second)
        assert second.dtype == their_second.dtype
