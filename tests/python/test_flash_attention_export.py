"""flash_attention as others call it: gradcheck, TorchScript, torch.compile, autocast, meta tensors,
an AOTInductor package. (Opcheck and export with other sizes: test_attention_export.py.)"""

import pytest
import torch
from attention_checks import leaves, run
from checks import compile_and_run, export_and_run, script_round_trip
from conftest import MACHINE
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def small(dtype=torch.float32, device="cpu", grad=False):
    """Inputs with every tensor, and options with every option but dropout."""
    shapes = [(2, 4, 5, 6), (2, 2, 7, 6), (2, 2, 7, 3), (4, 5, 7), (2, 4), (4,)]
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    tensors[4] = tensors[4].abs() * 0.2
    tensors = [x.to(device).requires_grad_(grad) for x in tensors]
    options = {"causal": True, "window_left": 4, "softcap": 2.0, "scale": 0.4}
    return tensors, options


@kernels
@pytest.mark.unchecked
@pytest.mark.parametrize("which", ["out", "lse", "both"])
@pytest.mark.parametrize(
    "options", [{}, {"causal": True, "window_left": 2, "softcap": 2.0}], ids=str
)
def test_gradcheck(device, options, which):
    shapes = [(1, 2, 3, 3), (1, 1, 4, 3), (1, 1, 4, 2), (2, 3, 4), (2,), (2,)]
    inputs = [torch.randn(s, dtype=torch.float64).to(device).requires_grad_() for s in shapes]

    def attend(*tensors):
        out, lse = ops.flash_attention(*tensors, **options)
        return {"out": out, "lse": lse, "both": (out, lse)}[which]

    assert gradcheck(attend, inputs)
    assert gradgradcheck(attend, inputs)


@kernels
@pytest.mark.unchecked
def test_gradcheck_with_dropout_and_dead_rows(device):
    shapes = [(1, 2, 4, 3), (1, 2, 3, 3), (1, 2, 3, 2)]
    inputs = [torch.randn(s, dtype=torch.float64).to(device).requires_grad_() for s in shapes]
    keep = torch.tensor([[True] * 3, [False] * 3, [True, False, True], [True] * 3]).to(device)
    state = torch.tensor([11, 0]).to(device)

    def attend(query, key, value):
        options = {"dropout_p": 0.4, "rng_state": state, "causal": True}
        out, lse = ops.flash_attention(query, key, value, keep, **options)
        return out, lse.masked_fill(lse == -torch.inf, 0)

    assert gradcheck(attend, inputs)
    assert gradgradcheck(attend, inputs)


def attend_all(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    slopes: torch.Tensor,
    sinks: torch.Tensor,
) -> torch.Tensor:
    return tilewright.flash_attention(
        query, key, value, bias, slopes, sinks, causal=True, window_left=4, softcap=2.0, scale=0.4
    )


@pytest.mark.smoke
@kernels
def test_script_export_compile(device):
    tensors, options = small(torch.float32, device)
    expected = attend_all(*tensors)
    assert torch.equal(ops.flash_attention(*tensors, **options)[0], expected)
    assert torch.equal(script_round_trip(attend_all, *tensors), expected)
    assert torch.equal(export_and_run(attend_all, *tensors), expected)
    assert torch.equal(compile_and_run(attend_all, *tensors), expected)


@pytest.mark.smoke
@kernels
def test_compiled_gradients(device):
    tensors, _ = small(torch.float32, device, grad=True)

    def loss(*tensors):
        return attend_all(*tensors).square().sum()

    expected = torch.autograd.grad(loss(*tensors), tensors)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for found, right in zip(
        torch.autograd.grad(compiled(*tensors), tensors), expected, strict=True
    ):
        torch.testing.assert_close(found, right)


@kernels
def test_scripted_gradients(device):
    tensors, _ = small(torch.float32, device, grad=True)
    expected = torch.autograd.grad(attend_all(*tensors).square().sum(), tensors)
    found = torch.autograd.grad(script_round_trip(attend_all, *tensors).square().sum(), tensors)
    assert all(map(torch.equal, found, expected))


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(device, dtype):
    """Query, key and value in autocast's dtype, a float32 bias as it is, gradients in float32."""
    (q, k, v, bias, _, sinks), options = small(torch.float32, device)
    inputs = leaves({"query": q, "key": k, "value": v, "bias": bias, "sinks": sinks}, device)
    with torch.autocast(device.type, dtype=dtype):
        out, lse = ops.flash_attention(**inputs, **options)
        low = [x.to(dtype) for x in (q, k, v)]
        expected = ops.flash_attention(*low, bias, None, sinks, **options)
        mixed = ops.flash_attention(q, low[1], low[2], bias.to(torch.float16), None, sinks)[0]
        packed = ops.flash_attention_varlen(
            *(x[0].transpose(0, 1) for x in (q, k, v)),
            *(torch.tensor([0, n], dtype=torch.int32).to(device) for n in (5, 7)),
            *(5, 7),
        )[0]
    assert out.dtype == mixed.dtype == packed.dtype == dtype and lse.dtype == torch.float32
    assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])
    out.float().sum().backward()
    for name, x in inputs.items():
        assert x.grad.dtype == torch.float32 and x.grad.isfinite().all(), name


@kernels
@pytest.mark.no_launch
def test_meta():
    tensors, options = small(torch.bfloat16, "meta", grad=True)
    q = torch.empty(2, 5, 4, 6, device="meta", dtype=torch.bfloat16).transpose(1, 2)
    inputs = dict(zip(("query", "key", "value"), (q, *tensors[1:3]), strict=True))
    out, lse, grads = run(
        *(ops.flash_attention, leaves(inputs, "meta"), options),
        grad_out=torch.empty(2, 4, 5, 3, device="meta"),
    )
    assert out.shape == (2, 4, 5, 3) and out.dtype == torch.bfloat16
    assert out.transpose(1, 2).is_contiguous()
    assert lse.shape == (2, 4, 5) and lse.dtype == torch.float32
    assert [grads[n].shape for n in inputs] == [x.shape for x in inputs.values()]


@pytest.mark.no_launch
def test_transforms_that_do_not_work_say_so(device):
    (q, k, v, *_), _ = small(torch.float32, device)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda q: ops.flash_attention(q, k, v)[0].sum())(q)


@pytest.mark.skipif(MACHINE != "cpu", reason="compiles C++ for the CPU")
def test_aot_inductor(tmp_path):
    class Attend(torch.nn.Module):
        def forward(self, query, key, bias):
            out, lse = ops.flash_attention(query, key, key, bias, causal=True)
            return out.relu(), lse

    inputs = torch.randn(2, 4, 30, 16), torch.randn(2, 2, 40, 16), torch.randn(2, 1, 1, 40)
    program = torch.export.export(Attend(), inputs)
    path = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "attend.pt2")
    )
    found = torch._inductor.aoti_load_package(path)(*inputs)
    for x, expected in zip(found, Attend()(*inputs), strict=True):
        torch.testing.assert_close(x, expected)
