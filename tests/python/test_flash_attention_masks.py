"""flash_attention with the masks that people write: large finite fills, static caches, queries that
see nothing and hold anything; and over many keys."""

import math

import pytest
import torch
from attention_checks import assert_attention, assert_lse, leaves, run
from checks import assert_close_to_fp64
from reference_attention import attention as reference
from reference_attention import plain

flash_attention = torch.ops.tilewright.flash_attention
kernels = pytest.mark.kernels
MOST = torch.finfo(torch.float32).max
FILLS = [-1e4, -1e9, -1e10, -1e30, -0.7 * MOST, -MOST]


def fill(shape, hidden, value):
    return torch.zeros(shape).masked_fill(hidden, value)


@kernels
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("value", FILLS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_by_a_large_number(device, dtype, value, side):
    """As if the padded keys were not there, however many come first."""
    real, padded = 40, 1030
    q, grad = (torch.randn(1, 2, 33, 32).to(dtype) for _ in "qg")
    k, v = (torch.randn(1, 2, padded + real, 32).to(dtype) for _ in "kv")
    keep = slice(padded, None) if side == "left" else slice(real)
    hidden = torch.ones(padded + real, dtype=torch.bool)
    hidden[keep] = False
    bias = fill((padded + real,), hidden, value).to(device)
    inputs = {"query": q, "key": k, "value": v}
    out, lse, found = run(flash_attention, leaves(inputs, device), {"bias": bias}, grad, None)
    short = {"query": q, "key": k[:, :, keep], "value": v[:, :, keep]}
    exact = run(reference, leaves(short, dtype=torch.float64), {}, grad.double(), None)
    same = run(plain, leaves(short), {}, grad, None)
    assert_close_to_fp64(out.cpu(), same[0], exact[0])
    assert_lse(lse.cpu(), same[1], exact[1])
    for name in ("key", "value"):
        assert not found[name][:, :, hidden].any(), name
        found[name] = found[name][:, :, keep]
    for name, gradient in found.items():
        assert_close_to_fp64(gradient.cpu(), same[2][name], exact[2][name], gradient=True)


@kernels
@pytest.mark.parametrize("value", FILLS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_a_large_number(device, dtype, value):
    """All keys alike: the mean of the values. What leaves float32 stays at its end."""
    inputs = {"query": torch.randn(1, 2, 40, 16), "key": torch.randn(1, 2, 200, 16)}
    inputs["value"] = torch.randn(1, 2, 200, 16)
    inputs = {name: x.to(dtype) for name, x in inputs.items()}
    bias = torch.zeros(40, 200)
    bias[7] = value
    grad = torch.randn(1, 2, 40, 16)
    options = {"bias": bias.to(device)}
    out, lse, found = run(flash_attention, leaves(inputs, device), options, grad, None)
    assert all(x.isfinite().all() for x in (out, *found.values()))
    if value < -1e5:  # beyond the digits that tell the products from each other
        mean = inputs["value"].double().mean(2)
        torch.testing.assert_close(out[:, :, 7].double().cpu(), mean, rtol=0, atol=5e-3)
        least = -MOST / math.log2(math.e)
        torch.testing.assert_close(lse[:, :, 7].cpu(), torch.full((1, 2), max(value, least)))


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_number_takes_the_row(device, dtype):
    q, k, v = (torch.randn(1, 2, n, 16).to(dtype) for n in (5, 70, 70))
    bias = torch.zeros(5, 70)
    bias[2, 33] = MOST
    out, lse = flash_attention(*(x.to(device) for x in (q, k, v, bias)))
    assert torch.equal(out[:, :, 2].cpu(), v[:, :, 33]) and lse.isfinite().all()


@kernels
@pytest.mark.parametrize("value", FILLS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_decoding_over_a_static_cache(device, dtype, value):
    """300 slots of 1024 are filled; the others are masked, and hold zeros."""
    q = torch.randn(2, 4, 1, 64).to(dtype)
    k, v = (torch.randn(2, 2, 1024, 64).to(dtype) for _ in "kv")
    hidden = torch.arange(1024) >= 300
    k[:, :, 300:] = v[:, :, 300:] = 0
    bias = fill((2, 1, 1, 1024), hidden, value)
    out, lse = flash_attention(*(x.to(device) for x in (q, k, v, bias)))
    short = (q, k[:, :, :300], v[:, :, :300])
    exact, same = reference(*(x.double() for x in short)), plain(*short)
    assert_close_to_fp64(out.cpu(), same[0], exact[0])
    assert_lse(lse.cpu(), same[1], exact[1])


@kernels
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_keys(device, dtype, sinks):
    """Sums of 128 tiles keep to the rule."""
    tensors = {name: torch.randn(1, 1, 8192, 64).to(dtype) for name in ("key", "value")}
    tensors["query"] = torch.randn(1, 1, 48, 64).to(dtype)
    if sinks:
        tensors["sinks"] = torch.tensor([3.0])
    assert_attention(flash_attention, tensors, {}, "both", device)


@kernels
@pytest.mark.parametrize("what", ["query", "grad"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_blind_queries_may_hold_anything(device, dtype, what):
    """Padded queries: their NaN, and that of their gradients, reaches nothing."""
    inputs = {"query": torch.randn(1, 2, 70, 16), "key": torch.randn(1, 2, 90, 16)}
    inputs["value"] = torch.randn(1, 2, 90, 16)
    inputs = {name: x.to(dtype) for name, x in inputs.items()}
    grad = torch.randn(1, 2, 70, 16).to(dtype)
    sees = torch.ones(70, 1, dtype=torch.bool)
    sees[66:] = sees[3] = False
    options = {"bias": sees.expand(70, 90).to(device)}
    expected = run(flash_attention, leaves(inputs, device), options, grad, None)
    blind = ~sees.view(70)
    (inputs["query"] if what == "query" else grad)[:, :, blind] = torch.nan
    found = run(flash_attention, leaves(inputs, device), options, grad, None)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    for name, gradient in expected[2].items():
        assert torch.equal(found[2][name], gradient), name
    assert not found[0][:, :, blind].any() and not found[2]["query"][:, :, blind].any()


@kernels
@pytest.mark.no_launch
def test_keys_of_no_query(device):
    """No heads of queries beside heads of keys: gradients of zero, not what memory held."""
    q = torch.randn(1, 0, 5, 8).to(device).requires_grad_()
    k, v = (torch.randn(1, 4, 5, 8).to(device).requires_grad_() for _ in "kv")
    held = [torch.full((1, 4, 5, 8), 7.0) for _ in range(50)]
    del held
    out, _ = flash_attention(q, k, v)
    assert not any(x.any() for x in torch.autograd.grad(out.sum(), [k, v]))
    packed = [x.detach()[0].transpose(0, 1).requires_grad_() for x in (q, k, v)]
    starts = torch.tensor([0, 5], dtype=torch.int32).to(device)
    out, _ = torch.ops.tilewright.flash_attention_varlen(*packed, starts, starts, 5, 5)
    assert not any(x.any() for x in torch.autograd.grad(out.sum(), packed[1:]))


@kernels
@pytest.mark.parametrize("stride", [65537, 2**21, 2**22])
def test_rows_far_apart(device, stride):
    """Rows of a wide fused tensor."""
    short = {n: torch.randn(1, 1, 70, 32) for n in ("query", "key", "value")}
    grad = torch.randn(1, 1, 70, 32)
    expected = run(flash_attention, leaves(short, device), {}, grad, None)
    far = {}
    for name, x in short.items():
        base = torch.empty(69 * stride + 32)
        far[name] = base.as_strided((1, 1, 70, 32), (70 * stride, 70 * stride, stride, 1))
        far[name].copy_(x)
    inputs = {name: x.to(device).requires_grad_() for name, x in far.items()}
    found = run(flash_attention, inputs, {}, grad, None)
    assert torch.equal(found[0], expected[0])
    for name, gradient in expected[2].items():
        torch.testing.assert_close(found[2][name].contiguous(), gradient)
