"""roi_align and multiscale_roi_align as others call them: opcheck, TorchScript, torch.export,
torch.compile, autocast, without a look at the device's data."""

import pytest
import torch
from checks import NoSynchronisation, compile_and_run, export_and_run, opcheck, script_round_trip
from conftest import MACHINE
from samples import layout, random_rois

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


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
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.unchecked)]
)
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
@pytest.mark.skipif(MACHINE == "cpu", reason="a promise of the CUDA code")
def test_nothing_synchronises(device):
    maps = [torch.randn(1, 3, s, s).to(device).requires_grad_() for s in (16, 8)]
    rois = random_rois(5, 16, 16).to(device)
    with NoSynchronisation():
        ops.roi_align(maps[0], rois, 1.0, 2, 2).sum().backward()
        ops.multiscale_roi_align(maps, rois, [1.0, 0.5], 2, 2).sum().backward()
