"""RoIAlign on the CPU gives the same bits however the work is cut: other boxes in the call,
layouts, threads, boxes too large for the window of packed rows."""

import pytest
import torch
from checks import assert_close_to_fp64, threads
from conftest import MACHINE
from reference import roi_align as reference

pytestmark = pytest.mark.skipif(MACHINE != "cpu", reason="a promise of the CPU kernels")


def boxes(count, height, width, batch=2):
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(count, 2, 2, generator=generator).sort(1).values
    corners = corners * torch.tensor([width, height]) * 1.2 - 0.1 * torch.tensor([width, height])
    index = torch.randint(0, batch, (count, 1), generator=generator)
    return torch.cat([index, corners.flatten(1)], 1)


def pool(x, rois, ratio=2, bins=(7, 5)):
    return torch.ops.tilewright.roi_align(x, rois, 0.5, *bins, ratio, True)


def grad(pooled, rois, shape, ratio=2):
    return torch.ops.tilewright._roi_align_backward(
        pooled, rois, 0.5, *pooled.shape[2:], *shape, ratio, True
    )


@pytest.mark.parametrize("ratio", [2, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_box_does_not_see_the_others(dtype, ratio):
    x = torch.randn(2, 37, 60, 90, generator=torch.Generator().manual_seed(0)).to(dtype)
    rois = boxes(40, 120, 180)
    together = pool(x, rois, ratio)
    for k in range(0, 40, 7):
        assert torch.equal(pool(x, rois[k : k + 1], ratio), together[k : k + 1])


@pytest.mark.parametrize("ratio", [2, -1])
@pytest.mark.parametrize("channels", [3, 16, 37, 300])
def test_layouts_give_the_same_bits(channels, ratio):
    x = torch.randn(2, channels, 40, 53, generator=torch.Generator().manual_seed(0))
    rois = boxes(30, 80, 106)
    last = x.contiguous(memory_format=torch.channels_last)
    pooled = pool(x, rois, ratio)
    assert torch.equal(pool(last, rois, ratio), pooled)
    from_planes = grad(pooled, rois, x.shape, ratio)
    pooled_last = pooled.contiguous(memory_format=torch.channels_last)
    assert torch.equal(grad(pooled_last, rois, x.shape, ratio), from_planes)


def test_a_box_too_large_for_the_window():
    x = torch.randn(1, 2, 1100, 300, generator=torch.Generator().manual_seed(0)).double()
    rois = torch.tensor([[0.0, 1.0, 3.0, 590.0, 2190.0], [0.0, 10.0, 30.0, 400.0, 900.0]]).double()
    ours = pool(x, rois)
    assert_close_to_fp64(ours, None, reference(x, rois, 0.5, 7, 5, 2, True))
    last = pool(x.contiguous(memory_format=torch.channels_last), rois)
    assert torch.equal(ours, last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_bands_of_a_tall_map(channels_last):
    """Gradients of boxes that reach over several bands of rows, with rows that no box touches."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (1, 24, 700, 130)
    rois = torch.tensor([[0.0, 5.0, 9.0, 200.0, 1390.0], [0.0, 40.0, 900.0, 90.0, 1000.0]])
    rois = rois.double()
    grad_pooled = torch.randn(2, 24, 7, 5, generator=torch.Generator().manual_seed(1)).double()
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    reference(x, rois, 0.5, 7, 5, 2, True).backward(grad_pooled)
    ours = threads(2, lambda: grad(grad_pooled.contiguous(memory_format=layout), rois, shape))
    assert ours.is_contiguous(memory_format=layout)
    assert_close_to_fp64(ours, None, x.grad, gradient=True)
    assert torch.equal(
        threads(1, lambda: grad(grad_pooled.contiguous(memory_format=layout), rois, shape)), ours
    )
