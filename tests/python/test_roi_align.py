"""roi_align: numbers, gradients, layouts, exports, bad input."""

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
from conftest import DTYPES, MACHINE
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
orders = pytest.mark.orders


def random_rois(count, height, width, scale=1.0, batch=1, dtype=torch.float32):
    """Boxes of all sizes, some over the border, in image coordinates."""
    centre = torch.rand(count, 2) * torch.tensor([width, height])
    size = torch.rand(count, 2) * torch.tensor([width, height]) * 0.8 + 0.3
    image = torch.randint(0, batch, (count, 1)).float()
    corners = torch.cat([centre - size / 2, centre + size / 2], 1) / scale
    return torch.cat([image, corners], 1).to(dtype)


def layout(tensor, channels_last):
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def leaf(tensor, device="cpu"):
    copy = tensor.detach().clone(memory_format=torch.preserve_format)
    return copy.to(device).requires_grad_()


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


def test_a_list_needs_one_tensor_per_image():
    x, box = torch.randn(2, 3, 8, 8), torch.tensor([[0.0, 0, 4, 4]])
    for boxes in ([box], [box, box, box[:0]]):
        message = rf"boxes must hold one tensor per image \(2\), got {len(boxes)}"
        with pytest.raises(ValueError, match=message):
            tilewright.roi_align(x, boxes, 3)
        with pytest.raises(ValueError, match=message):
            tilewright.multiscale_roi_align([x], boxes, 3, [1.0])


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


class _NoSynchronisation(torch.profiler.profile):
    """Fails where an operator inside asks the device for data."""

    def __init__(self):
        super().__init__(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True)

    def __exit__(self, *error):
        super().__exit__(*error)
        called = {event.key for event in self.key_averages()}
        assert any(name.startswith("tilewright::") for name in called)
        asking = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero"}
        assert not called & asking, called & asking


@kernels
@pytest.mark.skipif(MACHINE == "cpu", reason="a promise of the CUDA code")
def test_nothing_synchronises(device):
    maps = [torch.randn(1, 3, s, s).to(device).requires_grad_() for s in (16, 8)]
    rois = random_rois(5, 16, 16).to(device)
    with _NoSynchronisation():
        ops.roi_align(maps[0], rois, 1.0, 2, 2).sum().backward()
        ops.multiscale_roi_align(maps, rois, [1.0, 0.5], 2, 2).sum().backward()


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


ROIS = torch.tensor([[0.0, 1, 1, 6, 6]])


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


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(device, dtype, requires_grad):
    x = torch.randn(2, 3, 8, 8).to(dtype).to(device).requires_grad_(requires_grad)
    rois = random_rois(3, 8, 8, 1.0, 2).to(device)
    opcheck(ops.roi_align.default, (x, rois, 1.0, 2, 2))
    opcheck(ops.roi_align.default, (layout(x.detach(), True), rois, 1.0, 2, 2, 2, True))
    grad = torch.randn(3, 3, 2, 2).to(dtype).to(device).requires_grad_(requires_grad)
    opcheck(ops._roi_align_backward.default, (grad, rois, 1.0, 2, 2, 2, 3, 8, 8, 2, False))
    maps = [x, torch.randn(2, 3, 4, 4).to(dtype).to(device).requires_grad_(requires_grad)]
    opcheck(ops.multiscale_roi_align.default, (maps, rois, [1.0, 0.5], 2, 2))
    opcheck(
        ops._multiscale_roi_align_backward.default,
        (grad, rois, [1.0, 0.5], 2, 2, 2, 3, [8, 4], [8, 4], 2, False, 224, 4),
    )


def pool_list(x: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
    return tilewright.roi_align(x, boxes, 3, 0.5, 2, True)


def pool_levels(maps: list[torch.Tensor], rois: torch.Tensor) -> torch.Tensor:
    return tilewright.multiscale_roi_align(maps, rois, (2, 3), [1.0, 0.5])


@pytest.mark.smoke
@kernels
def test_script_export_compile(device):
    x = torch.randn(2, 3, 16, 16).to(device)
    boxes = [
        b[:, 1:].to(device) for b in (random_rois(3, 16, 16, 0.5), random_rois(2, 16, 16, 0.5))
    ]
    expected = pool_list(x, boxes)
    assert torch.equal(script_round_trip(pool_list, x, boxes), expected)
    assert torch.equal(export_and_run(pool_list, x, boxes), expected)
    assert torch.equal(compile_and_run(pool_list, x, boxes), expected)
    maps, rois = [x, x[:, :, ::2, ::2].contiguous()], random_rois(5, 16, 16, 1.0, 2).to(device)
    expected = pool_levels(maps, rois)
    assert torch.equal(script_round_trip(pool_levels, maps, rois), expected)
    assert torch.equal(export_and_run(pool_levels, maps, rois), expected)
    assert torch.equal(compile_and_run(pool_levels, maps, rois), expected)


@pytest.mark.smoke
@kernels
def test_export_with_dynamic_sizes(device):
    def pool(x, rois):
        return ops.roi_align(x, rois, 1.0, 2, 2)

    dim = torch.export.Dim
    x, rois = torch.randn(2, 3, 8, 10).to(device), random_rois(4, 8, 10).to(device)
    other = torch.randn(3, 3, 12, 9).to(device), random_rois(6, 12, 9).to(device)
    shapes = ({0: dim("n", min=1), 2: dim("h", min=4), 3: dim("w", min=4)}, {0: dim("k", min=2)})
    out = export_and_run(pool, x, rois, dynamic_shapes={"args": shapes}, other_args=other)
    assert torch.equal(out, pool(*other))


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_gradient(device, backend):
    x = torch.randn(1, 3, 8, 8).to(device).requires_grad_()
    rois = random_rois(3, 8, 8).to(device)

    def loss(x, rois):
        return tilewright.roi_align(x, rois, 2).square().sum()

    (expected,) = torch.autograd.grad(loss(x, rois), x)
    (compiled,) = torch.autograd.grad(torch.compile(loss, backend=backend)(x, rois), x)
    torch.testing.assert_close(compiled, expected)


@pytest.mark.smoke
@kernels
def test_autocast_keeps_boxes(device):
    conv = torch.nn.Conv2d(3, 4, 1).to(device)
    x = torch.randn(1, 3, 8, 8).to(device)
    rois = torch.tensor([[0.0, 0.3, 0.3, 6.7, 6.7]]).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        features = conv(x)
        assert features.dtype == torch.bfloat16
        out = tilewright.roi_align(features, rois, 2)
        levels = tilewright.multiscale_roi_align([features], rois, 2, [1.0])
        assert out.dtype == levels.dtype == torch.bfloat16
        # 16-bit boxes beside fp32 features are widened.
        assert tilewright.roi_align(x, rois.bfloat16(), 2).dtype == torch.float32
    assert torch.equal(out, tilewright.roi_align(features, rois, 2))
    out.float().sum().backward()
    assert conv.weight.grad.isfinite().all()


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
