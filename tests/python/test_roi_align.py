"""roi_align: numbers, gradients, layouts, torchvision, determinism."""

import compositions
import pytest
import reference
import torch
from checks import assert_close_to_fp64, threads
from conftest import DTYPES
from samples import layout, leaf, random_rois
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


@pytest.mark.smoke
@kernels
@orders
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 1, 2, 3])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward(device, dtype, channels_last, sampling_ratio, aligned):
    # 19 channels and 5 x 3 bins are multiples of no tile and no register.
    x = layout(torch.randn(2, 19, 17, 23).to(dtype), channels_last)
    rois = random_rois(
        7, 17, 23, 0.5, 2, torch.float64 if dtype == torch.float64 else torch.float32
    )
    ours = leaf(x, device)
    out = tilewright.roi_align(ours, rois.to(device), (5, 3), 0.5, sampling_ratio, aligned)
    assert out.dtype == dtype
    assert out.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    exact, plain = leaf(x.double()), leaf(x)
    expected = reference.roi_align(exact, rois, 0.5, 5, 3, sampling_ratio, aligned)
    composed = compositions.roi_align(plain, rois, 0.5, 5, 3, sampling_ratio, aligned)
    assert_close_to_fp64(out.cpu(), composed, expected)
    grad = layout(torch.randn(7, 19, 5, 3).to(dtype), channels_last)
    out.backward(grad.to(device))
    expected.backward(grad.double())
    composed.backward(grad)
    assert_close_to_fp64(ours.grad.cpu(), plain.grad, exact.grad, gradient=True)


@kernels
@pytest.mark.parametrize("channels", [1, 15, 16, 33, 64, 70])
def test_channel_counts(device, channels):
    x = torch.randn(1, channels, 9, 40)
    rois = random_rois(5, 9, 40)
    expected = reference.roi_align(x, rois, 1.0, 2, 2, 2)
    for channels_last in (False, True):
        out = tilewright.roi_align(layout(x, channels_last).to(device), rois.to(device), 2, 1.0, 2)
        torch.testing.assert_close(out.cpu().double(), expected, rtol=0, atol=1e-4)


@kernels
def test_wide_boxes_with_few_samples(device):
    # The line of pixels is longer than the samples on it: another loop on the CPU.
    x = torch.randn(1, 3, 4, 3000, dtype=torch.float64)
    rois = torch.tensor([[0, 1.0, 0.5, 2990, 3.0]], dtype=torch.float64)
    ours, exact = leaf(x, device), leaf(x)
    out = tilewright.roi_align(ours, rois.to(device), (2, 3), 1.0, 1)
    expected = reference.roi_align(exact, rois, 1.0, 2, 3, 1)
    assert_close_to_fp64(out.cpu(), None, expected)
    out.sum().backward()
    expected.sum().backward()
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@kernels
def test_non_contiguous_input_and_grad(device):
    x = torch.randn(2, 16, 23, 6, dtype=torch.float64).to(device).permute(0, 3, 1, 2)[:, :, ::2]
    rois = random_rois(3, 8, 23, dtype=torch.float64).to(device)
    expected = reference.roi_align(x.cpu(), rois.cpu(), 1.0, 2, 3, 2)
    ours = x.detach().requires_grad_()  # keeps its strides
    out = tilewright.roi_align(ours, rois, (2, 3), 1.0, 2)
    assert_close_to_fp64(out.cpu(), None, expected)
    out.sum().backward()  # an expanded gradient
    exact = leaf(x.cpu())
    reference.roi_align(exact, rois.cpu(), 1.0, 2, 3, 2).sum().backward()
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@kernels
def test_boxes_as_a_list_and_one_output_size(device):
    x = torch.randn(2, 3, 8, 8).to(device)
    first, second = torch.tensor([[0, 0, 4.0, 4], [1, 1, 7, 5]]), torch.tensor([[2, 2, 6.0, 6]])
    rois = torch.cat(
        [torch.cat([torch.zeros(2, 1), first], 1), torch.cat([torch.ones(1, 1), second], 1)]
    )
    a = tilewright.roi_align(x, [first.to(device), second.to(device)], 3)
    assert torch.equal(a, tilewright.roi_align(x, rois.to(device), (3, 3)))


@kernels
@orders
def test_backward_is_the_transpose(device):
    """<forward(x), g> = <x, backward(g)>, also where rounding decides which bin a sample falls
    into."""
    torch.manual_seed(1)
    width, height = 186, 4
    edge = torch.tensor([[0, 186.4998779296875, 0.5, 186.5001678466797, 1.5]])
    tiny = random_rois(40, height, width)
    tiny[:, 3:] = tiny[:, 1:3] + torch.rand(40, 2) * 1e-4
    border = random_rois(40, height, width)
    border[:20, 3] = width + 0.5
    border[20:, 1] = -0.5
    x = torch.rand(1, 1, height, width, dtype=torch.float64)
    for rois in (edge, tiny, border):
        for aligned in (False, True):
            for ratio in (1, 2, 7):
                leaf = x.float().to(device).requires_grad_()
                out = tilewright.roi_align(leaf, rois.to(device), (3, 7), 1.0, ratio, aligned)
                grad = torch.rand_like(out)
                out.backward(grad)
                forward = (out.double() * grad.double()).sum().item()
                transposed = (leaf.double() * leaf.grad.double()).sum().item()
                assert transposed == pytest.approx(forward, rel=1e-4)


@kernels
def test_rois_in_16_bits(device):
    x = torch.randn(1, 4, 16, 16).bfloat16()
    rois = random_rois(6, 16, 16).bfloat16()
    expected = reference.roi_align(x, rois, 1.0, 2, 2, 2)
    out = tilewright.roi_align(x.to(device), rois.to(device), 2, 1.0, 2)
    assert_close_to_fp64(out.cpu(), None, expected)


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sampling_ratio,aligned", [(2, False), (-1, True)])
def test_gradcheck(device, channels_last, sampling_ratio, aligned):
    x = layout(torch.randn(2, 2, 6, 7, dtype=torch.float64), channels_last).to(device)
    x.requires_grad_()
    rois = random_rois(3, 6, 7, 1.0, 2, torch.float64).to(device)

    def pool(x):
        return ops.roi_align(x, rois, 1.0, 2, 3, sampling_ratio, aligned)

    assert gradcheck(pool, (x,))
    assert gradgradcheck(pool, (x,))


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_number_of_threads(device, dtype):
    for channels_last in (False, True):
        x = layout(torch.randn(2, 50, 40, 40).to(dtype), channels_last).to(device)
        rois = random_rois(40, 40, 40, 1.0, 2).to(device)

        def both(x=x, rois=rois):
            leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
            out = tilewright.roi_align(leaf, rois, 7)
            out.float().square().sum().backward()
            return out.detach(), leaf.grad

        one, two = threads(1, both), threads(2, both)
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


@kernels
def test_deterministic_backward(device, another_order):
    x = torch.randn(1, 8, 20, 20).to(device).requires_grad_()
    rois = random_rois(50, 20, 20).to(device)
    grads = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            another_order()
            out = tilewright.roi_align(x, rois, 7)
            grads.append(torch.autograd.grad(out.square().sum(), x)[0])
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


def test_torchvision_agrees():
    vision = pytest.importorskip("torchvision").ops
    x = torch.randn(2, 5, 30, 40)
    rois = random_rois(20, 30, 40, 0.25, 2)
    for ratio in (-1, 2):
        for aligned in (False, True):
            ours = tilewright.roi_align(x, rois, (7, 5), 0.25, ratio, aligned)
            theirs = vision.roi_align(x, rois, (7, 5), 0.25, ratio, aligned)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
