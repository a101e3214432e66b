"""roi_pool, ps_roi_align and ps_roi_pool on odd data: the rule or the message for each."""

import math

import pytest
import reference_pooling as reference
import torch
from checks import assert_close_to_fp64
from conftest import MACHINE
from samples import layout, leaf, random_rois
from test_roi_pooling import CASES, ROI, every_op, expected_of, run

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders
nan, inf = math.nan, math.inf


@kernels
@pytest.mark.no_launch
@pytest.mark.parametrize("shape,boxes", [((2, 12, 8, 8), 0), ((2, 0, 8, 8), 2), ((0, 12, 8, 8), 0)])
@every_op
def test_empty(device, name, extra, shape, boxes):
    x = torch.zeros(shape).to(device).requires_grad_()
    out, second = run(name, x, ROI.repeat(boxes, 1).to(device), 1.0, (2, 3), extra)
    channels = shape[1] if name == "roi_pool" else shape[1] // 6
    assert out.shape == second.shape == (boxes, channels, 2, 3)
    out.sum().backward()
    assert x.grad.shape == shape
    assert not x.grad.any()


@kernels
@pytest.mark.parametrize("shape", [(1, 12, 0, 8), (1, 12, 8, 0), (1, 12, 0, 0)])
@every_op
def test_maps_without_pixels(device, name, extra, shape):
    for channels_last in (False, True):
        x = layout(torch.zeros(shape), channels_last).to(device).requires_grad_()
        out, second = run(name, x, ROI.to(device), 1.0, (2, 3), extra)
        assert not out.any()
        if name == "roi_pool":
            assert (second == -1).all()
        out.sum().backward()
        assert x.grad.shape == shape


@kernels
@every_op
def test_an_image_without_boxes_gets_a_zero_gradient(device, name, extra):
    for channels_last in (False, True):
        x = layout(torch.randn(3, 6, 8, 8), channels_last).to(device).requires_grad_()
        rois = torch.tensor([[1.0, 1, 1, 6, 6]]).to(device)
        run(name, x, rois, 1.0, (2, 3), extra)[0].sum().backward()
        assert not x.grad[0].any()
        assert x.grad[1].any()
        assert not x.grad[2].any()


NOT_FINITE = [
    [nan, 1, 4, 4],
    [1, -inf, 4, 4],
    [1, 1, inf, 4],
    [-inf, -inf, inf, inf],
    [2, 2, -inf, 5],
    [2, 2, 5, nan],
]
OUTSIDE = [[-50.0, -50, -40, -40], [100, 2, 120, 4], [1e30, 1e30, 2e30, 2e30], [2, -9e9, 4, -8e9]]
# Inverted, degenerate, larger than any map.
ODD = [[6.0, 6, 2, 2], [3, 3, 3, 3], [3.4, 2.2, 3.4, 5], [-1e30, -1e30, 1e30, 1e30]]


@kernels
@orders
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
@every_op
def test_boxes_that_are_no_boxes(device, dtype, name, extra, channels_last):
    rois = torch.tensor([[0.0, *box] for box in NOT_FINITE + OUTSIDE + ODD])
    count = len(NOT_FINITE + OUTSIDE)
    x = layout(torch.rand(1, 18, 8, 8).to(dtype) + 1, channels_last).to(device).requires_grad_()
    out, second = run(name, x, rois.to(device), 1.0, (2, 3), extra)
    assert out.isfinite().all()
    assert not out[:count].any()
    if name == "roi_pool":
        assert (second[:count] == -1).all()
    (grad,) = torch.autograd.grad(out[:count].sum(), x, retain_graph=True)
    assert not grad.any()
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.isfinite().all()


@kernels
@every_op
def test_inverted_and_degenerate_boxes(device, name, extra):
    rois = torch.tensor([[0.0, *box] for box in ODD[:3]], dtype=torch.float64)
    x = torch.rand(1, 18, 8, 8, dtype=torch.float64)
    ours, exact = leaf(x, device), leaf(x)
    out = run(name, ours, rois.to(device), 1.0, (2, 3), extra)[0]
    expected = expected_of(name, exact, rois, 1.0, (2, 3), extra)
    assert_close_to_fp64(out.cpu(), None, expected)
    if extra == (-1,):  # no samples: 0, where torchvision gives NaN
        assert not out[:2].any()
        torchvision = pytest.importorskip("torchvision").ops
        assert torchvision.ps_roi_align(x, rois[1:2], (2, 3)).isnan().all()
    out.sum().backward()
    (expected.sum() + 0 * exact.sum()).backward()  # of boxes without samples too
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad)


@kernels
@pytest.mark.parametrize("index", [-1.0, 2.0, nan, inf, 1e20])
@every_op
def test_image_index_out_of_range(device, data_raises, name, extra, index):
    x = torch.ones(2, 18, 8, 8).to(device).requires_grad_()
    rois = torch.tensor([[0, 1, 1, 4.0, 4], [index, 1, 1, 4, 4]]).to(device)
    if data_raises:
        message = rf"tilewright::{name}: the image index of rois\[1\] must lie in \[0, 2\)"
        with pytest.raises(RuntimeError, match=message):
            run(name, x, rois, 1.0, (2, 3), extra)
        run(name, x, rois[:1], 1.0, (2, 3), extra)
        return
    out, second = run(name, x, rois, 1.0, (2, 3), extra)
    assert not out[1].any()
    torch.testing.assert_close(out[0], torch.ones_like(out[0]))
    if name == "roi_pool":
        assert (second[1] == -1).all()
    out.sum().backward()
    assert x.grad.sum().item() == pytest.approx(out[0].numel(), rel=1e-5)


@kernels
@orders
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_roi_pool_nan_pixels_win(device, dtype):
    """As in PyTorch's own max pooling; torchvision passes over them."""
    x = torch.randn(1, 20, 12, 16).to(dtype)
    x[:, :, 3, 5] = nan
    x[:, 3:7, 6, 2:9] = nan
    x[:, 11, :, :] = -inf
    x[:, 12] = inf
    x[:, 13, 2:5] = inf
    rois = random_rois(9, 12, 16).to(rois_type(dtype))
    expected, pixels = reference.roi_pool(x, rois, 1.0, 3, 3)
    assert expected.isnan().any()
    for channels_last in (False, True):
        ours = leaf(layout(x, channels_last), device)
        out, argmax = ops.roi_pool(ours, rois.to(device), 1.0, 3, 3)
        assert torch.equal(argmax.cpu(), pixels)
        torch.testing.assert_close(out.cpu().double(), expected, rtol=0, atol=0, equal_nan=True)
        out.sum().backward()
        assert ours.grad.double().sum().item() == (pixels >= 0).sum().item()


def rois_type(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


@kernels
@pytest.mark.parametrize("value", [nan, inf])
@pytest.mark.parametrize("name,extra", CASES[1:])
def test_pixels_that_do_not_weigh_do_not_count(device, name, extra, value):
    """Bins beside a NaN or infinite pixel stay clean, though a register reads it."""
    x = torch.ones(1, 4, 8, 40)
    x[..., 20:23] = value
    rois = torch.tensor([[0, 2.0, 1, 18, 6], [0, 25.0, 1, 38, 6]])
    for channels_last in (False, True):
        ours = leaf(layout(x, channels_last), device)
        out = run(name, ours, rois.to(device), 1.0, (2, 2), extra)[0]
        torch.testing.assert_close(out, torch.ones_like(out))
        (grad,) = torch.autograd.grad(out, ours, torch.full_like(out, value))
        assert not grad[..., 20:23].any()
        assert grad.isfinite().any()


@kernels
@every_op
def test_rois_in_16_bits(device, name, extra):
    x = torch.randn(1, 12, 16, 16).bfloat16()
    rois = random_rois(6, 16, 16).bfloat16()
    out = run(name, x.to(device), rois.to(device), 1.0, (2, 2), extra)[0]
    expected = expected_of(name, x, rois.float(), 1.0, (2, 2), extra)
    assert_close_to_fp64(out.cpu(), None, expected)


@kernels
@every_op
def test_far_corner_of_a_long_map(device, name, extra):
    """Coordinates beyond 2^24, where fp32 can no longer add single pixels."""
    width = (1 << 24) + 64
    x = torch.zeros(1, 1, 1, width)
    x[..., -20:] = torch.arange(1.0, 21)
    roi = torch.tensor([[0.0, width - 16, 0, width - 8, 1]], dtype=torch.float64)
    if name == "ps_roi_align":
        x, roi = x.double(), roi  # its samples need the digits
    out = run(name, x.to(device), roi.to(x.dtype).to(device), 1.0, (1, 1), extra)[0]
    if name == "roi_pool":
        assert out.item() == 13.0
    elif name == "ps_roi_pool":
        assert out.item() == 0.0  # one row: the last
    else:
        expected = expected_of(name, x, roi, 1.0, (1, 1), extra)
        assert_close_to_fp64(out.cpu(), None, expected)


GOOD = torch.zeros(1, 4, 8, 8)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"input": GOOD[0]}, r"input must have shape \(N, C, H, W\), got \(4, 8, 8\)"),
        ({"input": GOOD.int()}, "input must be float64, float32, float16 or bfloat16"),
        ({"rois": torch.zeros(3, 4)}, r"rois must have shape \(K, 5\), got \(3, 4\)"),
        ({"rois": ROI[0]}, r"rois must have shape \(K, 5\), got \(5,\)"),
        ({"rois": ROI.double()}, "rois must be float32 or of input's dtype"),
        ({"rois": ROI.to("meta")}, "rois must be on the device of input"),
        ({"spatial_scale": 0.0}, "spatial_scale must be positive and finite, got 0"),
        ({"spatial_scale": -inf}, "spatial_scale must be positive and finite, got -inf"),
        ({"pooled_width": 0}, "pooled_height and pooled_width must be positive, got 2 and 0"),
        ({"pooled_height": -2}, "pooled_height and pooled_width must be positive, got -2 and 2"),
    ],
)
@pytest.mark.parametrize("name", ["roi_pool", "ps_roi_pool", "ps_roi_align"])
def test_wrong_input(name, change, message):
    args = {"input": GOOD, "rois": ROI, "spatial_scale": 1.0}
    args |= {"pooled_height": 2, "pooled_width": 2} | change
    with pytest.raises(RuntimeError, match=f"tilewright::{name}: " + message):
        getattr(ops, name)(**args)
    if not args["rois"].is_meta:  # the shape functions say the same
        args["input"], args["rois"] = args["input"].to("meta"), args["rois"].to("meta")
        with pytest.raises(RuntimeError, match=f"tilewright::{name}: " + message):
            getattr(ops, name)(**args)


@pytest.mark.parametrize("name", ["ps_roi_pool", "ps_roi_align"])
def test_channels_must_fit_the_bins(name):
    message = (
        rf"tilewright::{name}: input must have a multiple of pooled_height \* pooled_width "
        r"\(2 \* 3\) channels, got 4"
    )
    for where in ("cpu", "meta"):
        with pytest.raises(RuntimeError, match=message):
            getattr(ops, name)(GOOD.to(where), ROI.to(where), 1.0, 2, 3)
    with pytest.raises(RuntimeError, match="there must be fewer than 2\\^31 bins"):
        getattr(ops, name)(GOOD, ROI, 1.0, 1 << 16, 1 << 16)


def test_sampling_ratio_is_bounded():
    with pytest.raises(RuntimeError, match="sampling_ratio must be at most 1024, got 1025"):
        ops.ps_roi_align(GOOD, ROI, 1.0, 2, 2, 1025)


@pytest.mark.skipif(MACHINE == "cuda", reason="lazily zeroed memory")
def test_roi_pool_refuses_maps_that_argmax_cannot_index():
    x = torch.zeros(1, dtype=torch.bfloat16).expand(1, 1, 1 << 16, 1 << 15)
    with pytest.raises(RuntimeError, match=r"fewer than 2\^31 pixels .* got 65536 x 32768"):
        ops.roi_pool(x, ROI, 1.0, 2, 2)


def test_wrong_gradients():
    grad, argmax = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2, dtype=torch.int32)

    def backward(grad, argmax):
        return ops._roi_pool_backward(grad, ROI, argmax, 1.0, 2, 2, 1, 4, 8, 8)

    with pytest.raises(RuntimeError, match=r"grad must have shape \(1, 4, 2, 2\), got"):
        backward(grad[:, :3], argmax)
    with pytest.raises(RuntimeError, match="argmax must be int32"):
        backward(grad, argmax.long())
    with pytest.raises(RuntimeError, match="argmax must have the shape of grad"):
        backward(grad, argmax[:, :3])
    far = torch.full_like(argmax, 64)  # beyond the map: ignored, like -1
    assert not backward(torch.ones_like(grad), far).any()
    with pytest.raises(RuntimeError, match=r"grad must have shape \(1, 1, 2, 2\), got"):
        ops._ps_roi_align_backward(grad, ROI, 1.0, 2, 2, 1, 4, 8, 8, 2)
    with pytest.raises(RuntimeError, match=r"grad must have shape \(1, 1, 2, 2\), got"):
        ops._ps_roi_pool_backward(grad, ROI, 1.0, 2, 2, 1, 4, 8, 8)


def test_a_list_needs_one_tensor_per_image():
    message = r"boxes must hold one tensor per image \(1\), got 2"
    for pool in (tilewright.roi_pool, tilewright.ps_roi_pool, tilewright.ps_roi_align):
        with pytest.raises(ValueError, match=message):
            pool(GOOD, [ROI[:, 1:], ROI[:, 1:]], 2)
