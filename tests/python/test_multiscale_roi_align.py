"""multiscale_roi_align: levels, numbers, gradients, bad input; the rest of its checks stand beside
those of roi_align, whose kernels it shares."""

import math

import compositions
import pytest
import reference
import torch
from checks import assert_close_to_fp64
from conftest import DTYPES
from samples import ROIS, layout, leaf, random_rois
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


@pytest.mark.smoke
@kernels
@orders
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_multiscale(device, dtype, channels_last):
    scales = [0.25, 0.125, 0.0625]
    maps = [
        layout(torch.randn(2, 6, math.ceil(160 * s), math.ceil(200 * s)).to(dtype), channels_last)
        for s in scales
    ]
    rois = random_rois(
        24, 160, 200, 1.0, 2, torch.float64 if dtype == torch.float64 else torch.float32
    )
    rois[0, 3:] = rois[0, 1:3]  # no area: first level
    canonical = {"canonical_scale": 40, "canonical_level": 3}
    levels = {reference.pyramid_level(r[1:].tolist(), scales, **canonical) for r in rois}
    assert levels == {0, 1, 2}
    ours = [leaf(m, device) for m in maps]
    out = tilewright.multiscale_roi_align(ours, rois.to(device), (3, 2), scales, **canonical)
    exact = [leaf(m.double()) for m in maps]
    expected = reference.multiscale_roi_align(exact, rois, scales, 3, 2, **canonical)
    plain = [leaf(m) for m in maps]
    composed = torch.cat(
        [
            compositions.roi_align(plain[level], roi[None], scales[level], 3, 2, 2)
            for roi in rois
            for level in [reference.pyramid_level(roi[1:].double().tolist(), scales, **canonical)]
        ]
    )
    assert_close_to_fp64(out.cpu(), composed, expected)
    grad = layout(torch.randn(24, 6, 3, 2).to(dtype), channels_last)
    out.backward(grad.to(device))
    expected.backward(grad.double())
    composed.backward(grad)
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert_close_to_fp64(a.grad.cpu(), b.grad, c.grad, gradient=True)


@pytest.mark.parametrize(
    "change,message",
    [
        (
            {"grad": torch.zeros(1, 3, 2, 3)},
            r"grad must have shape \(1, 3, 2, 2\), got \(1, 3, 2, 3\)",
        ),
        (
            {"grad": torch.zeros(2, 3, 2, 2)},
            r"grad must have shape \(1, 3, 2, 2\), got \(2, 3, 2, 2\)",
        ),
        (
            {"grad": torch.zeros(3, 2, 2)},
            r"grad must have shape \(K, C, pooled_height, pooled_width\)",
        ),
        ({"rois": torch.zeros(1, 4)}, r"rois must have shape \(K, 5\), got \(1, 4\)"),
        ({"spatial_scales": []}, "expected 1 to 16 spatial scales, got 0"),
        ({"spatial_scales": [1.0] * 17}, "expected 1 to 16 spatial scales, got 17"),
        ({"spatial_scales": [1.0, 0.3]}, "spatial_scales must halve from level to level"),
        ({"heights": [8]}, r"expected a height and a width per spatial scale \(2\), got 1 and 2"),
        ({"canonical_scale": 0}, "canonical_scale must be positive, got 0"),
    ],
)
def test_backward_wrong_input(change, message):
    args = {"grad": torch.zeros(1, 3, 2, 2), "rois": ROIS, "spatial_scales": [1.0, 0.5]}
    args |= {"pooled_height": 2, "pooled_width": 2, "batch": 1, "channels": 3}
    args |= {"heights": [8, 4], "widths": [8, 4], "sampling_ratio": 2, "aligned": False}
    args |= {"canonical_scale": 224, "canonical_level": 4} | change
    with pytest.raises(
        RuntimeError, match="tilewright::_multiscale_roi_align_backward: " + message
    ):
        ops._multiscale_roi_align_backward(**args)
    if "grad" in change or "rois" in change:
        with pytest.raises(RuntimeError, match="tilewright::_roi_align_backward: " + message):
            ops._roi_align_backward(args["grad"], args["rois"], 1.0, 2, 2, 1, 3, 8, 8, 2, False)


@pytest.mark.smoke
@kernels
def test_multiscale_gradcheck(device):
    maps = [torch.randn(1, 2, 16 // s, 12 // s, dtype=torch.float64).to(device) for s in (1, 2)]
    rois = random_rois(4, 16, 12, 1.0, 1, torch.float64).to(device)

    def pool(*maps):
        return ops.multiscale_roi_align(maps, rois, [1.0, 0.5], 2, 2, 2, False, 8, 1)

    inputs = [m.requires_grad_() for m in maps]
    assert gradcheck(pool, inputs)
    assert gradgradcheck(pool, inputs)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"features": []}, "expected 1 to 16 feature maps, got 0"),
        ({"spatial_scales": [1.0]}, r"expected one spatial scale per feature map \(2\), got 1"),
        ({"spatial_scales": [1.0, 0.3]}, "spatial_scales must halve from level to level"),
        ({"canonical_scale": 0}, "canonical_scale must be positive, got 0"),
        (
            {"features": [torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 4, 4)]},
            r"feature maps must agree in batch and channels, got \(1, 2, 8, 8\) and \(1, 3, 4, 4\)",
        ),
        (
            {"features": [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4).double()]},
            "feature maps must have one dtype, got Float and Double",
        ),
    ],
)
def test_multiscale_wrong_input(change, message):
    args = {"features": [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)], "rois": ROIS}
    args |= {"spatial_scales": [1.0, 0.5], "pooled_height": 2, "pooled_width": 2} | change
    with pytest.raises(RuntimeError, match="tilewright::multiscale_roi_align: " + message):
        ops.multiscale_roi_align(**args)
