"""roi_align on odd data: the rule or the message for each."""

import math

import pytest
import torch
from samples import ROIS, layout

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


@kernels
@pytest.mark.parametrize("shape,boxes", [((2, 3, 8, 8), 0), ((2, 0, 8, 8), 2), ((1, 3, 0, 8), 2)])
@pytest.mark.no_launch
def test_empty(device, shape, boxes):
    x = torch.zeros(shape).to(device).requires_grad_()
    rois = torch.tensor([[0, 1.0, 1, 4, 4]]).repeat(boxes, 1).to(device)
    out = tilewright.roi_align(x, rois, 2)
    assert out.shape == (boxes, shape[1], 2, 2)
    assert not out.any()
    out.sum().backward()
    assert x.grad.shape == shape
    assert not x.grad.any()


@kernels
@orders
def test_boxes_that_are_no_boxes(device):
    nan, inf = math.nan, math.inf
    odd = [
        [nan, 1, 4, 4],
        [1, -inf, 4, 4],
        [1, 1, inf, 4],
        [-inf, -inf, inf, inf],
        [2, 2, -inf, 5],
        [2, 2, 5, -inf],
        [6, 6, 2, 2],  # inverted
        [3, 3, 3, 3],  # degenerate
        [1e30, 1e30, 2e30, 2e30],  # far away, and so large that a grid of its pixels is none
        [-1e30, -1e30, 1e30, 1e30],
        [-50, -50, -40, -40],
    ]
    rois = torch.tensor([[0.0, *box] for box in odd], dtype=torch.float32)
    for aligned in (False, True):
        for ratio in (-1, 2):
            x = torch.ones(1, 2, 8, 8).to(device).requires_grad_()
            out = tilewright.roi_align(x, rois.to(device), 2, 1.0, ratio, aligned)
            assert out.isfinite().all()
            assert not out[:6].any(), "a box with NaN or infinite coordinates gives 0"
            assert not out[8].any()
            assert not out[10].any()
            (grad,) = torch.autograd.grad(out[:6].sum() + out[10].sum(), x)
            assert not grad.any()
            assert (
                torch.autograd.grad(
                    tilewright.roi_align(x, rois.to(device), 2, 1.0, ratio, aligned).sum(), x
                )[0]
                .isfinite()
                .all()
            )
    # Degenerate, aligned and adaptive: no samples.
    degenerate = rois[7:8].to(device)
    assert not tilewright.roi_align(
        torch.ones(1, 1, 8, 8).to(device), degenerate, 2, 1.0, -1, True
    ).any()


@kernels
def test_infinite_pixels_count_where_they_weigh(device):
    x = torch.zeros(1, 1, 4, 4)
    x[..., 2] = -math.inf
    # Bins of two pixels: samples at 0, 1 | 2, 3 exactly, so the left bin gives pixel 2 no weight.
    rois = torch.tensor([[0, -0.5, -0.5, 3.5, 3.5]])
    for channels_last in (False, True):
        out = tilewright.roi_align(
            layout(x, channels_last).to(device), rois.to(device), (1, 2), 1.0, 2
        )
        assert out.flatten().tolist() == [0.0, -math.inf]


@kernels
@pytest.mark.parametrize("index", [-1.0, 2.0, math.nan])
def test_image_index_out_of_range(device, data_raises, index):
    x = torch.ones(2, 3, 8, 8).to(device).requires_grad_()
    rois = torch.tensor([[0, 0, 0, 4.0, 4], [index, 0, 0, 4, 4]]).to(device)
    if data_raises:
        with pytest.raises(RuntimeError, match=r"image index of rois\[1\] must lie in \[0, 2\)"):
            tilewright.roi_align(x, rois, 2)
        tilewright.roi_align(x, rois[:1], 2)
        return
    out = tilewright.roi_align(x, rois, 2)
    assert not out[1].any()
    assert (out[0] == 1).all()
    out.sum().backward()
    assert x.grad.sum().item() == pytest.approx(3 * 4, rel=1e-5)


def test_a_list_needs_one_tensor_per_image():
    x, box = torch.randn(2, 3, 8, 8), torch.tensor([[0.0, 0, 4, 4]])
    for boxes in ([box], [box, box, box[:0]]):
        message = rf"boxes must hold one tensor per image \(2\), got {len(boxes)}"
        with pytest.raises(ValueError, match=message):
            tilewright.roi_align(x, boxes, 3)
        with pytest.raises(ValueError, match=message):
            tilewright.multiscale_roi_align([x], boxes, 3, [1.0])


@pytest.mark.parametrize(
    "change,message",
    [
        ({"input": torch.zeros(3, 8, 8)}, r"input must have shape \(N, C, H, W\), got \(3, 8, 8\)"),
        ({"input": torch.zeros(1, 3, 8, 8, dtype=torch.int32)}, "input must be float64, float32"),
        ({"rois": torch.zeros(3, 4)}, r"rois must have shape \(K, 5\), got \(3, 4\)"),
        ({"rois": ROIS[0]}, r"rois must have shape \(K, 5\), got \(5,\)"),
        ({"rois": ROIS.double()}, "rois must be float32 or of input's dtype"),
        ({"rois": ROIS.to("meta")}, "rois must be on the device of input"),
        ({"spatial_scale": 0.0}, "spatial_scale must be positive and finite, got 0"),
        ({"spatial_scale": math.nan}, "spatial_scale must be positive and finite, got nan"),
        ({"pooled_height": 0}, "pooled_height and pooled_width must be positive, got 0 and 2"),
        ({"sampling_ratio": 1025}, "sampling_ratio must be at most 1024, got 1025"),
    ],
)
def test_wrong_input(change, message):
    args = {"input": torch.zeros(1, 3, 8, 8), "rois": ROIS, "spatial_scale": 1.0}
    args |= {"pooled_height": 2, "pooled_width": 2} | change
    with pytest.raises(RuntimeError, match="tilewright::roi_align: " + message):
        ops.roi_align(**args)
    if not args["rois"].is_meta:  # the shape function says the same
        args["input"], args["rois"] = args["input"].to("meta"), args["rois"].to("meta")
        with pytest.raises(RuntimeError, match="tilewright::roi_align: " + message):
            ops.roi_align(**args)
