"""roi_align_rotated: numbers, gradients, layouts, exports, bad input."""

import math

import compositions
import pytest
import reference
import torch
from checks import (
    assert_close_to_fp64,
    compile_and_run,
    export_and_run,
    opcheck,
    script_round_trip,
    threads,
)
from conftest import DTYPES
from samples import layout, leaf, random_rotated_rois
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


@kernels
@pytest.mark.orders
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward(device, dtype, channels_last, sampling_ratio, aligned):
    x = layout(torch.randn(2, 19, 17, 23).to(dtype), channels_last)
    rois = random_rotated_rois(
        7, 17, 23, 0.5, 2, torch.float64 if dtype == torch.float64 else torch.float32
    )
    ours = leaf(x, device)
    out = tilewright.roi_align_rotated(ours, rois.to(device), (5, 3), 0.5, sampling_ratio, aligned)
    assert out.dtype == dtype
    assert out.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    exact, plain = leaf(x.double()), leaf(x)
    expected = reference.roi_align_rotated(exact, rois, 0.5, 5, 3, sampling_ratio, aligned)
    composed = compositions.roi_align_rotated(plain, rois, 0.5, 5, 3, sampling_ratio, aligned)
    assert_close_to_fp64(out.cpu(), composed, expected)
    grad = layout(torch.randn(7, 19, 5, 3).to(dtype), channels_last)
    out.backward(grad.to(device))
    expected.backward(grad.double())
    composed.backward(grad)
    assert_close_to_fp64(ours.grad.cpu(), plain.grad, exact.grad, gradient=True)


@kernels
@pytest.mark.parametrize("channels", [1, 16, 70])
def test_channel_counts(device, channels):
    x = torch.randn(1, channels, 9, 40, dtype=torch.float64)
    rois = random_rotated_rois(5, 9, 40, dtype=torch.float64)
    expected = reference.roi_align_rotated(x, rois, 1.0, 2, 2, 2)
    for channels_last in (False, True):
        out = tilewright.roi_align_rotated(
            layout(x, channels_last).to(device), rois.to(device), 2, 1.0, 2
        )
        assert_close_to_fp64(out.cpu(), None, expected)


@kernels
def test_angles_against_turned_images(device):
    """A positive angle turns counter-clockwise as seen: a quarter of a turn is rot90, the box's own
    left end lies at the bottom."""
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64).to(device)
    whole = torch.tensor([[0, 4.0, 4, 8, 8, 0]], dtype=torch.float64).to(device)
    upright = tilewright.roi_align(x, torch.tensor([[0, 0.0, 0, 8, 8]]).to(x), 4, 1.0, 2, True)
    for turns in range(-3, 4):
        whole[0, 5] = turns * math.pi / 2
        out = tilewright.roi_align_rotated(x, whole, 4, 1.0, 2)
        torch.testing.assert_close(out, torch.rot90(upright, -turns, (2, 3)), rtol=0, atol=1e-12)


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_angle_is_roi_align(device, dtype):
    x = torch.randn(1, 5, 12, 14, dtype=dtype).to(device)
    corners = torch.tensor([[0, 1.5, 2.0, 11.0, 9.5], [0, -3.0, -2.0, 5.0, 30.0]], dtype=dtype)
    low, high = corners[:, 1:3], corners[:, 3:]
    angle = torch.zeros(2, 1, dtype=dtype)
    turned = torch.cat([corners[:, :1], (low + high) / 2, high - low, angle], 1)
    for ratio in (2, -1):
        out = tilewright.roi_align_rotated(x, turned.to(device), 3, 1.0, ratio)
        straight = tilewright.roi_align(x, corners.to(device), 3, 1.0, ratio, True)
        torch.testing.assert_close(out, straight, rtol=0, atol=1e-5)


@kernels
@pytest.mark.parametrize("ratio", [-1, 3])
def test_boxes_that_are_no_boxes(device, ratio):
    """NaN and infinite numbers give 0 and no gradient; far-away and giant boxes are walked only
    where they meet the map."""
    x = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    good = [0, 3.0, 3.0, 4.0, 2.0, 0.3]
    rows = [good]
    for column in range(1, 6):
        for value in (math.nan, math.inf, -math.inf):
            rows.append([*good[:column], value, *good[column + 1 :]])
    odd = len(rows)
    rows += [
        [0, 1e9, 1e9, 5.0, 5.0, 1.0],  # far away
        [0, 3.0, 3.0, 0.0, 0.0, 1.0],  # a point
        [0, 3.0, 3.0, 0.0, 4.0, 1.0],
        [0, 3.0, 3.0, -4.0, 2.0, 0.5],  # inverted
    ]
    rois = torch.tensor(rows, dtype=torch.float64)
    ours, exact = leaf(x, device), leaf(x)
    out = tilewright.roi_align_rotated(ours, rois.to(device), 2, 1.0, ratio)
    expected = reference.roi_align_rotated(exact, rois, 1.0, 2, 2, ratio)
    assert_close_to_fp64(out.cpu(), None, expected)
    assert not out[1:odd].any()
    out.sum().backward()
    expected.sum().backward()
    assert_close_to_fp64(ours.grad.cpu(), None, exact.grad, gradient=True)


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_giant_boxes(device, dtype):
    # A million pixels across: all samples of the one bin, a pixel apart, whose share on the map is
    # the map's mean over the samples' number.
    x = torch.ones(1, 1, 6, 7, dtype=dtype).to(device).requires_grad_()
    rois = torch.tensor([[0, 3.0, 3.0, 1e6, 1e6, 0.5]], dtype=dtype).to(device)
    out = tilewright.roi_align_rotated(x, rois, 1)
    assert 0 < out.item() < 1e-10
    out.backward(torch.full_like(out, 1e12))
    # Samples lie a pixel apart, so each pixel has weight about 1, border pixels a little more.
    assert (x.grad > 0.2).all() and (x.grad < 5).all()


@kernels
def test_infinite_pixels_count_where_they_weigh(device):
    x = torch.zeros(1, 1, 4, 4).to(device)
    x[0, 0, 0, 0] = math.inf
    rois = torch.tensor([[0, 2.5, 2.5, 2.0, 2.0, 0.0], [0, 1.0, 1.0, 2.0, 2.0, 0.0]]).to(device)
    out = tilewright.roi_align_rotated(x, rois, 1, 1.0, 2)
    assert out[0].item() == 0 and out[1].item() == math.inf


@kernels
@pytest.mark.no_launch
@pytest.mark.parametrize("shape,boxes", [((2, 3, 8, 8), 0), ((2, 0, 8, 8), 2), ((1, 3, 0, 8), 2)])
def test_empty(device, shape, boxes):
    x = torch.zeros(shape).to(device).requires_grad_()
    rois = torch.tensor([[0, 4.0, 4, 4, 4, 1]]).repeat(boxes, 1).to(device)
    out = tilewright.roi_align_rotated(x, rois, 2)
    assert out.shape == (boxes, shape[1], 2, 2) and not out.any()
    out.sum().backward()
    assert x.grad.shape == x.shape and not x.grad.any()


@kernels
@pytest.mark.parametrize("index", [-1.0, 2.0, math.nan])
def test_image_index_out_of_range(device, data_raises, index):
    x = torch.randn(2, 3, 8, 8).to(device)
    rois = torch.tensor([[0, 4.0, 4, 4, 4, 0], [index, 4, 4, 4, 4, 0]]).to(device)
    if data_raises:
        with pytest.raises(RuntimeError, match=r"image index of rois\[1\] must lie in \[0, 2\)"):
            tilewright.roi_align_rotated(x, rois, 2)
        return
    assert not tilewright.roi_align_rotated(x, rois, 2)[1].any()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"rois": torch.zeros(3, 5)}, r"rois must have shape \(K, 6\), got \(3, 5\)"),
        ({"input": torch.zeros(3, 8, 8)}, r"input must have shape \(N, C, H, W\), got \(3, 8, 8\)"),
        ({"input": torch.zeros(1, 3, 8, 8, dtype=torch.int32)}, "input must be"),
        ({"rois": torch.zeros(3, 6, dtype=torch.float64)}, "rois must be float32 or of input's"),
        ({"rois": torch.zeros(3, 6, device="meta")}, "rois must be on the device of input"),
        ({"spatial_scale": 0.0}, "spatial_scale must be positive and finite, got 0"),
        ({"pooled_height": 0}, "pooled_height and pooled_width must be positive, got 0 and 2"),
        ({"sampling_ratio": 2000}, "sampling_ratio must be at most 1024, got 2000"),
    ],
)
def test_wrong_input(change, message):
    arguments = {
        "input": torch.zeros(1, 3, 8, 8),
        "rois": torch.zeros(3, 6),
        "spatial_scale": 1.0,
        "pooled_height": 2,
        "pooled_width": 2,
        "sampling_ratio": 2,
    }
    arguments |= change
    with pytest.raises(RuntimeError, match=r"tilewright::roi_align_rotated: " + message):
        ops.roi_align_rotated(**arguments)
    if not arguments["rois"].is_meta:  # the shape function says the same
        arguments |= {name: arguments[name].to("meta") for name in ("input", "rois")}
        with pytest.raises(RuntimeError, match=r"tilewright::roi_align_rotated: " + message):
            ops.roi_align_rotated(**arguments)


@kernels
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sampling_ratio", [2, -1])
def test_gradcheck(device, channels_last, sampling_ratio):
    x = layout(torch.randn(2, 3, 7, 6, dtype=torch.float64), channels_last)
    x = x.to(device).requires_grad_()
    rois = random_rotated_rois(3, 7, 6, 1.0, 2, torch.float64).to(device)

    def function(x):
        return tilewright.roi_align_rotated(x, rois, (2, 3), 1.0, sampling_ratio)

    assert gradcheck(function, x)
    assert gradgradcheck(function, x)


@kernels
@pytest.mark.orders
@pytest.mark.parametrize("channels_last", [False, True])
def test_same_bits(device, another_order, channels_last):
    """For any number of threads, and on every run."""
    x = layout(torch.randn(2, 40, 33, 30), channels_last)
    rois = random_rotated_rois(60, 33, 30, 1.0, 2).to(device)
    grad = layout(torch.randn(60, 40, 3, 3), channels_last).to(device)

    def run():
        ours = leaf(x, device)
        out = tilewright.roi_align_rotated(ours, rois, 3, 1.0, 2)
        out.backward(grad)
        return out, ours.grad

    first = threads(1, run)
    another_order()
    for a, b in zip(first, threads(2, run), strict=True):
        assert torch.equal(a, b)


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(device, requires_grad):
    x = torch.randn(1, 3, 8, 8).to(device).requires_grad_(requires_grad)
    rois = random_rotated_rois(3, 8, 8).to(device)
    opcheck(ops.roi_align_rotated, (x, rois, 1.0, 2, 2, 2, True))
    grad = torch.randn(3, 3, 2, 2).to(device).requires_grad_(requires_grad)
    opcheck(ops._roi_align_rotated_backward, (grad, rois, 1.0, 2, 2, 1, 3, 8, 8, 2, True))


@kernels
def test_script_export_compile(device):
    x, rois = torch.randn(1, 3, 8, 8).to(device), random_rotated_rois(3, 8, 8).to(device)

    def function(x: torch.Tensor, rois: torch.Tensor):
        return torch.ops.tilewright.roi_align_rotated(x, rois, 1.0, 2, 2, 2)

    expected = function(x, rois)
    assert torch.equal(script_round_trip(function, x, rois), expected)
    assert torch.equal(export_and_run(function, x, rois), expected)
    assert torch.equal(compile_and_run(function, x, rois), expected)
    scripted = script_round_trip(tilewright.roi_align_rotated, x, rois, (2, 2), 1.0, 2, True)
    assert torch.equal(scripted, expected)


@kernels
def test_autocast_keeps_boxes(device):
    x = torch.randn(1, 3, 8, 8, dtype=torch.bfloat16).to(device)
    rois = random_rotated_rois(3, 8, 8).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = tilewright.roi_align_rotated(x, rois, 2, 1.0, 2)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, tilewright.roi_align_rotated(x, rois, 2, 1.0, 2))
