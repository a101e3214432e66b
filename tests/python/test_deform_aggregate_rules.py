"""deform_aggregate's rules: DCNv3's conventions worked by hand, borders, numbers that are none,
layouts, empty tensors."""

import pytest
import torch
from aggregate_cases import SHAPES, call, problem
from samples import leaf

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def one_tap(image, tap, kernel, scale=1.0, move=(0.0, 0.0), padding=0, dilation=1):
    """What a tap reads, at every place."""
    taps = kernel[0] * kernel[1]
    sizes = [
        size + 2 * padding - dilation * (k - 1)
        for size, k in zip(image.shape[1:3], kernel, strict=True)
    ]
    mask = torch.zeros(1, *sizes, taps, dtype=image.dtype, device=image.device)
    mask[..., tap] = 1
    offset = torch.tensor(move, dtype=image.dtype, device=image.device).repeat(1, *sizes, taps)
    out = ops.deform_aggregate(image, offset, mask, kernel, 1, padding, dilation, 1, scale)
    return out[0, :, :, 0]


@kernels
def test_taps_are_counted_column_by_column(device):
    image = torch.arange(9.0, device=device).reshape(1, 3, 3, 1)
    for tap in range(9):
        kx, ky = divmod(tap, 3)
        assert one_tap(image, tap, (3, 3)).tolist() == [[3.0 * ky + kx]]
    image = torch.arange(6.0, device=device).reshape(1, 3, 2, 1)
    found = [one_tap(image, tap, (3, 2)).item() for tap in range(6)]
    assert found == [0, 2, 4, 1, 3, 5]


@kernels
def test_offsets_are_to_the_right_and_down(device):
    image = torch.arange(25.0, device=device).reshape(1, 5, 5, 1)
    assert one_tap(image, 4, (3, 3), move=(1.0, 0.0), padding=1)[2, 2] == 13
    assert one_tap(image, 4, (3, 3), move=(0.0, 1.0), padding=1)[2, 2] == 17
    # A quarter of the way from 12 to 13, half of the way to the row below.
    assert one_tap(image, 4, (3, 3), move=(0.25, 0.5), padding=1)[2, 2] == 12.25 + 2.5


@kernels
def test_the_scale_stretches_the_kernel_around_its_centre(device):
    image = torch.arange(49.0, device=device).reshape(1, 7, 7, 1)
    # The place (3, 3) is 24. Tap 0 lies at (-1, -1), times the scale; with dilation 2 twice as far.
    assert one_tap(image, 0, (3, 3), padding=1)[3, 3] == 24 - 8
    assert one_tap(image, 0, (3, 3), scale=2.0, padding=1)[3, 3] == 24 - 16
    assert one_tap(image, 0, (3, 3), scale=0.5, padding=1)[3, 3] == 24 - 4
    assert one_tap(image, 0, (3, 3), scale=0.5, padding=2, dilation=2)[3, 3] == 24 - 8
    # Offsets are stretched too: (-1 + 3, -1 + 1) * 0.5 = (1, 0).
    assert one_tap(image, 0, (3, 3), scale=0.5, move=(3.0, 1.0), padding=1)[3, 3] == 25


@kernels
def test_the_centre_of_an_even_kernel_is_above_and_left(device):
    image = torch.arange(49.0, device=device).reshape(1, 7, 7, 1)
    # Two taps: the first is the centre and stays; the second is one, stretched two pixels away.
    assert one_tap(image, 0, (2, 2), scale=2.0)[2, 2] == 16
    assert one_tap(image, 3, (2, 2), scale=2.0)[2, 2] == 16 + 2 * 8
    # Four: the second is the centre. The window begins at the place (1, 1), so the centre is 16.
    assert one_tap(image, 5, (4, 4), scale=2.0)[1, 1] == 16
    assert one_tap(image, 0, (4, 4), scale=2.0)[1, 1] == 16 - 2 * 8
    assert one_tap(image, 15, (4, 4), scale=0.5)[1, 1] == 16 + 8


@kernels
def test_a_sum_by_hand(device):
    # Two groups, of (row, column) maps [[1, 2], [3, 4]] and ten times that; taps (0, 0) and (0, 1).
    image = torch.tensor([[1.0, 2], [3, 4]], device=device)
    image = torch.stack([image, 10 * image], -1)[None].requires_grad_()
    offset = torch.tensor([[0.5, 0.0, 0, 0.5], [0, 1, -1.5, 0]], device=device)
    offset = offset.reshape(1, 1, 1, 8).repeat(1, 2, 1, 1).requires_grad_()
    mask = torch.tensor([2.0, 3, 5, -1], device=device).repeat(1, 2, 1, 1).requires_grad_()
    out = tilewright.deform_aggregate(image, offset, mask, (1, 2), groups=2)
    # The first place: 2 * mean(1, 2) + 3 * mean(2, 4), and 5 * 30 - 1 * (10 at -0.5) = 5.
    # The second: 2 * mean(3, 4) + 3 * (4 above zeros), and 5 * nothing - 1 * (30 at -0.5) = 15.
    assert out[0, :, 0].tolist() == [[12.0, 145.0], [13.0, -15.0]]
    out[0, 0, 0].sum().backward()
    assert mask.grad[0, 0, 0].tolist() == [1.5, 3.0, 30.0, 5.0]
    # mask * (slope to the right, slope down)
    assert offset.grad[0, 0, 0].tolist() == [2, 4, -9, 6, 50, -150, -10, -10]
    assert image.grad[0, :, :, 0].tolist() == [[1.0, 2.5], [0.0, 1.5]]
    assert image.grad[0, :, :, 1].tolist() == [[-0.5, 0.0], [5.0, 0.0]]
    assert (mask.grad[0, 1] == 0).all() and (offset.grad[0, 1] == 0).all()


@kernels
def test_offsets_that_are_no_places(device):
    tensors, numbers = problem(SHAPES[0])
    offset = tensors[1]
    clean = offset.clone()
    for i, value in enumerate((float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e19)):
        offset[:, i % 3, :, 2 * i + i % 2] = value
        clean[:, i % 3, :, 2 * i + i % 2] = 1e6  # far outside
    ours, far = [leaf(t, device) for t in tensors], [leaf(t, device) for t in tensors]
    far[1] = leaf(clean, device)
    a, b = call(ours, numbers), call(far, numbers)
    assert torch.equal(a, b)
    for x, y in zip(
        torch.autograd.grad(a.sum(), ours), torch.autograd.grad(b.sum(), far), strict=True
    ):
        assert torch.isfinite(x).all()
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    moved = torch.autograd.grad(call(ours, numbers).sum(), ours[1])[0]
    assert (moved[~torch.isfinite(offset.to(device))] == 0).all()


@kernels
def test_the_slope_at_whole_coordinates(device):
    # The map goes on as zeros: at -1 the surface begins to rise towards pixel 0.
    image = torch.tensor([3.0, 5.0], dtype=torch.float64, device=device).reshape(1, 1, 2, 1)
    for place, value, slope in ((-1.0, 0.0, 3.0), (0.0, 3.0, 2.0), (1.0, 5.0, -5.0), (2.0, 0, 0)):
        offset = torch.zeros(1, 1, 2, 2, dtype=torch.float64, device=device)
        offset[0, 0, :, 0] = torch.tensor([place, place - 1])
        offset.requires_grad_()
        mask = torch.ones(1, 1, 2, 1, dtype=torch.float64, device=device)
        out = tilewright.deform_aggregate(image, offset, mask, 1)
        assert out.flatten().tolist() == [value, value]
        out.sum().backward()
        assert offset.grad[0, 0, :, 0].tolist() == [slope, slope]


@kernels
def test_pixels_that_weigh_nothing_do_not_count(device):
    image = torch.arange(24.0, device=device).reshape(1, 3, 4, 2)
    image[0, 1, 2] = torch.tensor([float("inf"), float("nan")])
    offset = torch.zeros(1, 3, 4, 2, device=device)
    mask = torch.ones(1, 3, 4, 1, device=device, requires_grad=True)
    out = tilewright.deform_aggregate(image, offset, mask, 1)
    torch.testing.assert_close(out, image, rtol=0, atol=0, equal_nan=True)
    (shares,) = torch.autograd.grad(out[..., :1].sum(), mask)
    # NaN times a gradient of 0 is NaN; all other places are their own pixel's sums.
    assert torch.isfinite(shares.flatten()[[i for i in range(12) if i != 6]]).all()
    # A gradient that is not finite stays with its own pixel too.
    clean = torch.arange(24.0, device=device).reshape(1, 3, 4, 2).requires_grad_()
    grad = torch.ones_like(out)
    grad[0, 1, 1, 0] = float("inf")
    (found,) = torch.autograd.grad(
        tilewright.deform_aggregate(clean, offset, mask.detach(), 1), clean, grad
    )
    assert torch.equal(found, grad)


@kernels
def test_strides_are_the_callers(device):
    tensors, numbers = problem(SHAPES[2], dtype=torch.float32)
    expected = [leaf(t, device) for t in tensors]
    wanted = call(expected, numbers)
    # Maps that were channels first, every second of a row, and a gradient of another layout.
    strided = [
        tensors[0].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        tensors[1].repeat_interleave(2, -1)[..., ::2],
        tensors[2].transpose(1, 2).contiguous().transpose(1, 2),
    ]
    assert not any(t.is_contiguous() for t in strided)
    ours = [t.to(device).detach().requires_grad_() for t in strided]
    found = call(ours, numbers)
    assert torch.equal(found, wanted) and found.is_contiguous()
    grad = torch.randn(wanted.transpose(1, 3).shape, device=device).transpose(1, 3)
    for a, b in zip(
        torch.autograd.grad(found, ours, grad),
        torch.autograd.grad(wanted, expected, grad.contiguous()),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@kernels
def test_memory_that_begins_anywhere(device):
    """Channels travel in packs only where the memory allows it."""
    tensors, numbers = problem(SHAPES[1], dtype=torch.float32)
    flat = torch.cat([torch.zeros(1), tensors[0].flatten()]).to(device)
    shifted = flat[1:].reshape(tensors[0].shape)
    rest = [t.to(device) for t in tensors[1:]]
    assert torch.equal(call([shifted, *rest], numbers), call([shifted.clone(), *rest], numbers))


@pytest.mark.no_launch
@kernels
def test_batch_of_none(device):
    tensors, numbers = problem(SHAPES[2], batch=0)
    ours = [leaf(t, device) for t in tensors]
    out = call(ours, numbers)
    assert out.shape[0] == 0 and out.shape[3] == 12
    for grad, tensor in zip(torch.autograd.grad(out.sum(), ours), ours, strict=True):
        assert grad.shape == tensor.shape
    twice = torch.autograd.grad(call(ours, numbers).sum(), ours, create_graph=True)
    assert all(g.shape == t.shape for g, t in zip(twice, ours, strict=True))


@kernels
def test_maps_without_rows(device):
    image = torch.zeros(2, 0, 5, 4, device=device)
    offset = torch.randn(2, 2, 5, 2, device=device)
    given = [leaf(t, device) for t in (image, offset, torch.ones(2, 2, 5, 1))]
    out = tilewright.deform_aggregate(*given, (1, 1), padding=(1, 0))
    assert out.shape == (2, 2, 5, 4) and (out == 0).all()
    for again in (False, True):
        grads = torch.autograd.grad(out.sum(), given, retain_graph=True, create_graph=again)
        assert all((g == 0).all() for g in grads)
