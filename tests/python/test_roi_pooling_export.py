"""roi_pool, ps_roi_align and ps_roi_pool as others call them: TorchScript, torch.export,
torch.compile, autocast, modules, opcheck, instruction sets."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checks import compile_and_run, export_and_run, opcheck, script_round_trip
from samples import layout, random_rois
from test_house import ISAS, _python_path
from test_roi_pooling import every_op, run

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def pool_list(x: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
    return tilewright.roi_pool(x, boxes, 3, 0.5)


def ps_align_list(x: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
    return tilewright.ps_roi_align(x, boxes, (2, 3), 0.5, 2)


def ps_pool_list(x: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
    return tilewright.ps_roi_pool(x, boxes, (2, 3), 0.5)


@kernels
@pytest.mark.parametrize("function", [pool_list, ps_align_list, ps_pool_list])
def test_script_export_compile(device, function):
    x = torch.randn(2, 12, 16, 16).to(device)
    boxes = [
        b[:, 1:].to(device) for b in (random_rois(3, 16, 16, 0.5), random_rois(2, 16, 16, 0.5))
    ]
    expected = function(x, boxes)
    assert torch.equal(script_round_trip(function, x, boxes), expected)
    assert torch.equal(export_and_run(function, x, boxes), expected)
    assert torch.equal(compile_and_run(function, x, boxes), expected)


@kernels
@every_op
def test_export_with_dynamic_sizes(device, name, extra):
    def pool(x, rois):
        return run(name, x, rois, 1.0, (2, 2), extra)

    dim = torch.export.Dim
    x, rois = torch.randn(2, 4, 8, 10).to(device), random_rois(4, 8, 10).to(device)
    other = torch.randn(3, 4, 12, 9).to(device), random_rois(6, 12, 9).to(device)
    shapes = ({0: dim("n", min=1), 2: dim("h", min=4), 3: dim("w", min=4)}, {0: dim("k", min=2)})
    results = export_and_run(pool, x, rois, dynamic_shapes={"args": shapes}, other_args=other)
    for result, expected in zip(results, pool(*other), strict=True):
        assert torch.equal(result, expected)


@kernels
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.unchecked)]
)
@every_op
def test_compiled_gradient(device, backend, name, extra):
    x = torch.randn(1, 4, 8, 8).to(device).requires_grad_()
    rois = random_rois(3, 8, 8).to(device)

    def loss(x, rois):
        return run(name, x, rois, 1.0, (2, 2), extra)[0].square().sum()

    (expected,) = torch.autograd.grad(loss(x, rois), x)
    (compiled,) = torch.autograd.grad(torch.compile(loss, backend=backend)(x, rois), x)
    torch.testing.assert_close(compiled, expected)


@kernels
@every_op
def test_autocast_keeps_boxes(device, name, extra):
    conv = torch.nn.Conv2d(3, 4, 1).to(device)
    x = torch.randn(1, 3, 8, 8).to(device)
    rois = torch.tensor([[0.0, 0.3, 0.3, 6.7, 6.7]]).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        features = conv(x)
        assert features.dtype == torch.bfloat16
        out = run(name, features, rois, 1.0, (2, 2), extra)[0]
        assert out.dtype == torch.bfloat16
        # 16-bit boxes beside fp32 features are widened.
        wide = run(name, features.float(), rois.bfloat16(), 1.0, (2, 2), extra)[0]
        assert wide.dtype == torch.float32
    assert torch.equal(out, run(name, features, rois, 1.0, (2, 2), extra)[0])
    out.float().sum().backward()
    assert conv.weight.grad.isfinite().all()
    assert conv.weight.grad.any()


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("requires_grad", [False, True])
@every_op
def test_opcheck(device, dtype, requires_grad, name, extra):
    x = torch.randn(2, 12, 8, 8).to(dtype).to(device).requires_grad_(requires_grad)
    rois = random_rois(3, 8, 8, 1.0, 2).to(device)
    op = getattr(ops, name).default
    opcheck(op, (x, rois, 1.0, 2, 2, *extra))
    opcheck(op, (layout(x.detach(), True), rois, 1.0, 2, 3, *extra))
    backward = getattr(ops, f"_{name}_backward").default
    grad, second = (t.detach() for t in op(x, rois, 1.0, 2, 2, *extra))
    grad.requires_grad_(requires_grad)
    sizes = (1.0, 2, 2, 2, 12, 8, 8)
    argmax = (second,) if name == "roi_pool" else ()
    opcheck(backward, (grad, rois, *argmax, *sizes, *extra))


@kernels
def test_modules(device):
    x, rois = torch.randn(2, 12, 9, 9).to(device), random_rois(4, 9, 9, 1.0, 2).to(device)
    cases = [
        ("RoIPool", (2, 0.5), tilewright.roi_pool(x, rois, 2, 0.5)),
        ("PSRoIPool", ((2, 3), 0.5), tilewright.ps_roi_pool(x, rois, (2, 3), 0.5)),
        ("PSRoIAlign", (2, 0.5, 2), tilewright.ps_roi_align(x, rois, 2, 0.5, 2)),
    ]
    vision = pytest.importorskip("torchvision").ops
    for name, arguments, expected in cases:
        module = getattr(tilewright, name)(*arguments)
        assert torch.equal(module(x, rois), expected)
        assert torch.equal(torch.jit.script(module)(x, rois), expected)
        assert "spatial_scale=0.5" in repr(module)
        theirs = getattr(vision, name)(*arguments)(x.cpu(), rois.cpu())
        torch.testing.assert_close(theirs, expected.cpu(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_runs(isa):
    if ISAS.index(isa) > ISAS.index(tilewright._C.cpu_instruction_set()):
        pytest.skip(f"this machine has no {isa}")
    script = """
import test_roi_pooling as tests, test_roi_pooling_bad_input as odd, torch, tilewright
print(tilewright._C.cpu_instruction_set())
cpu = torch.device("cpu")
for name, extra in tests.CASES:
    for dtype in tests.DTYPES:
        for last in (False, True):
            torch.manual_seed(0)
            tests.test_forward_and_backward(cpu, dtype, name, extra, last)
    tests.test_wide_boxes_and_narrow_maps(cpu, name, extra)
for dtype in tests.DTYPES:
    tests.test_argmax_is_the_first_greatest_pixel(cpu, dtype)
odd.test_roi_pool_nan_pixels_win(cpu, torch.float32)
"""
    run_of_isa = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env={
            "TILEWRIGHT_ISA": isa,
            "TILEWRIGHT_DEVICE": "cpu",
            "PYTHONPATH": _python_path(),
            "OMP_NUM_THREADS": "1",  # threads of small operators mostly wait for each other
        },
        capture_output=True,
        text=True,
    )
    assert run_of_isa.returncode == 0, run_of_isa.stderr
    assert run_of_isa.stdout.split() == [isa]
