"""flash_attention on rows that hold NaN: it must show, and stay in its row; and on windows and
sinks at the ends of their types."""

import sys

import pytest
import torch
from attention_checks import leaves, run

flash_attention = torch.ops.tilewright.flash_attention
kernels = pytest.mark.kernels
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def poison(name, inputs, options):
    """Scores of row 0 of head 0 are all NaN."""
    if name == "query":
        inputs["query"][:, 0, 0] = torch.nan
    elif name == "bias":
        options["bias"] = torch.zeros(1, 1, inputs["query"].size(2), inputs["key"].size(2))
        options["bias"] = options["bias"].expand(1, 2, -1, -1).clone()
        options["bias"][0, 0, 0] = torch.nan
    else:
        options["alibi_slopes"] = torch.tensor([torch.nan, 0.5])


@kernels
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("what", ["query", "bias", "alibi_slopes"])
@pytest.mark.parametrize("lengths", [(1, 9), (3, 70), (20, 30), (70, 70)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_nan(device, dtype, lengths, what, sinks):
    inputs = {"query": torch.randn(1, 2, lengths[0], 16).to(dtype)}
    inputs |= {name: torch.randn(1, 2, lengths[1], 16).to(dtype) for name in ("key", "value")}
    options = {"sinks": torch.tensor([0.5, 0.1])} if sinks else {}
    poison(what, inputs, options)
    options = {name: x.to(device) for name, x in options.items()}
    out, lse, grads = run(
        flash_attention, leaves(inputs, device), options, torch.randn(1, 2, lengths[0], 16), None
    )
    rows = 1 if what != "alibi_slopes" else lengths[0]
    for result in (out, lse, grads["query"]):
        assert result[0, 0, :rows].isnan().all()
        assert result[0, 0, rows:].isfinite().all() and result[0, 1].isfinite().all()


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_nan_in_pages(device, dtype):
    query, cache = torch.randn(2, 2, 3, 16).to(dtype), torch.randn(5, 4, 2, 16).to(dtype)
    query[0, 1, 2] = torch.nan
    table = torch.arange(4, dtype=torch.int32).reshape(2, 2)
    lengths = torch.tensor([8, 5], dtype=torch.int32)
    tensors = (x.to(device) for x in (query, cache, cache, table, lengths))
    out, lse = torch.ops.tilewright.flash_attention_paged(*tensors)
    bad = torch.zeros(2, 2, 3, dtype=torch.bool)
    bad[0, 1, 2] = True
    assert torch.equal(lse.isnan().cpu(), bad)
    assert torch.equal(out.isnan().cpu(), bad.unsqueeze(-1).expand_as(out))


@kernels
@pytest.mark.parametrize("top_left", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_windows_as_wide_as_integers(device, dtype, top_left):
    """The largest integer is unlimited, forward and backward."""
    inputs = {"query": torch.randn(1, 2, 20, 16).to(dtype)}
    inputs |= {name: torch.randn(1, 2, 33, 16).to(dtype) for name in ("key", "value")}
    grad = torch.randn(1, 2, 20, 16)
    expected = run(flash_attention, leaves(inputs, device), {"top_left": top_left}, grad, None)
    for width in (sys.maxsize, sys.maxsize - 1, 2**62):
        for name in ("window_left", "window_right"):
            options = {"top_left": top_left, name: width}
            out, lse, grads = run(flash_attention, leaves(inputs, device), options, grad, None)
            assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])
            for of in inputs:
                torch.testing.assert_close(grads[of], expected[2][of])


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_sinks_of_minus_infinity_beside_no_keys(device, dtype):
    inputs = {name: torch.randn(1, 2, 5, 16).to(dtype) for name in ("query", "key", "value")}
    inputs["sinks"] = torch.tensor([-torch.inf, 0.3])
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[2] = False
    grads = torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5)
    grads[1][0, 0, 2] = 0
    options = {"bias": mask.to(device)}
    out, lse, found = run(flash_attention, leaves(inputs, device), options, *grads)
    assert lse[0, 0, 2] == -torch.inf and (out[0, 0, 2] == 0).all()
    assert found["sinks"][0] == 0 and found["sinks"][1].isfinite()
