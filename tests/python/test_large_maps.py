"""RoI operators on maps of more than 2^31 elements. Left out of the usual runs:
python -m pytest tests/python/test_large_maps.py -m large

The maps are zero pages that nothing fills, so reading costs no memory. A gradient takes 4.5 GiB,
and beside it an operator may hold tiles of one channel in float32, 64 MiB per thread.
"""

import mmap

import pytest
import torch
from conftest import MACHINE
from samples import leaf

ops = torch.ops.tilewright
pytestmark = [pytest.mark.large]
kernels = pytest.mark.kernels

SIDE, CHANNELS = 4096, 132  # 2^31 * 1.03; 132 = 33 * 4 bins
CORNER = 32
# In the far corner of the map, and of a crop of it.
BOXES = torch.tensor([[20.0, 18, 29, 31], [8, 3, 24, 30.5]])


def turned(rois):
    """The boxes, rotated about their centres."""
    low, high = rois[:, 1:3], rois[:, 3:]
    angle = torch.tensor([[0.3], [-2.0]])
    return torch.cat([rois[:, :1], (low + high) / 2, high - low, angle], 1)


POOLS = {
    "roi_align": lambda x, rois: ops.roi_align(x, rois, 1.0, 2, 2, 2),
    "multiscale_roi_align": lambda x, rois: ops.multiscale_roi_align([x], rois, [1.0], 2, 2, 2),
    "roi_pool": lambda x, rois: ops.roi_pool(x, rois, 1.0, 2, 2)[0],
    "ps_roi_pool": lambda x, rois: ops.ps_roi_pool(x, rois, 1.0, 2, 2)[0],
    "ps_roi_align": lambda x, rois: ops.ps_roi_align(x, rois, 1.0, 2, 2, 2)[0],
    "roi_align_rotated": lambda x, rois: ops.roi_align_rotated(x, turned(rois), 1.0, 2, 2, 2),
}
# Turned points of the far corner are rounded to 1 / 4096 of a pixel, those of the crop to less.
TOLERANCE = {"roi_align_rotated": 0.02}
every_op = pytest.mark.parametrize("name", POOLS)
layouts = pytest.mark.parametrize("channels_last", [False, True])


def assert_same(name, large, small):
    torch.testing.assert_close(large, small, rtol=0, atol=TOLERANCE.get(name, 0))


def lazy_map(channels_last):
    """(1, CHANNELS, SIDE, SIDE) of bfloat16 zeros, on pages that do not exist yet."""
    count = CHANNELS * SIDE * SIDE
    assert count > 2**31
    flat = torch.frombuffer(mmap.mmap(-1, 2 * count), dtype=torch.bfloat16)
    if channels_last:
        return flat.view(1, SIDE, SIDE, CHANNELS).permute(0, 3, 1, 2)
    return flat.view(1, CHANNELS, SIDE, SIDE)


def rois_of(offset):
    return torch.cat([torch.zeros(len(BOXES), 1), BOXES + offset], 1)


def with_corner(channels_last):
    """A map with numbers in its far corner, and that corner alone."""
    x = lazy_map(channels_last)
    corner = torch.randn(1, CHANNELS, CORNER, CORNER).bfloat16()
    x[..., -CORNER:, -CORNER:] = corner
    return x, corner


@kernels
@layouts
@every_op
def test_forward(name, channels_last):
    if MACHINE == "cuda":
        pytest.skip("lazy memory is the host's")
    x, corner = with_corner(channels_last)
    out = POOLS[name](x, rois_of(SIDE - CORNER))
    assert_same(name, out, POOLS[name](corner, rois_of(0)))
    assert out.any()


@pytest.mark.skipif(MACHINE != "cpu", reason="a thread per pixel: not on the emulated device")
@every_op
def test_backward(name):
    x, corner = with_corner(False)
    x.requires_grad_()
    out = POOLS[name](x, rois_of(SIDE - CORNER))
    grad = torch.randn_like(out)
    (large,) = torch.autograd.grad(out, x, grad)
    small = leaf(corner)
    POOLS[name](small, rois_of(0)).backward(grad)
    assert_same(name, large[..., -CORNER:, -CORNER:], small.grad)
    assert not large[:, :, :-CORNER].any()
