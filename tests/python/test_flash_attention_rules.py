"""flash_attention's promises beside its numbers: the same bits again and for any number of threads,
NaN where nobody looks, empty inputs, dropout, layouts of the results."""

import os

import attention_cases as cases
import pytest
import reference_attention as reference
import torch
from attention_checks import assert_attention, leaves, on, run
from checks import NoSynchronisation, threads
from conftest import MACHINE

import tilewright

flash_attention = torch.ops.tilewright.flash_attention
kernels = pytest.mark.kernels
orders = pytest.mark.orders

PLAIN = {name: values[0] for name, values in cases.OPTIONS.items()}
EVERYTHING = {
    **PLAIN,
    **{"window": "causal and left", "alibi": "(B, H)", "bias": "own", "bias_shape": "1 H Sq Sk"},
    **{"softcap": 1.5, "sinks": True, "dropout": 0.3, "gradient": "both"},
}


def all_of(case, device):
    """A function that runs a case forward and backward, and returns all results."""
    tensors, options = cases.make(case)
    inputs, options = leaves(tensors, device), on(device, options)
    shape = (*tensors["query"].shape[:3], tensors["value"].shape[3])
    grads = torch.randn(shape).to(tensors["query"].dtype), torch.randn(shape[:3])

    def results():
        out, lse, found = run(flash_attention, inputs, options, *grads)
        return [out, lse, *found.values()]

    return results


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@kernels
@orders
@pytest.mark.unchecked
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_250_repeats(device, another_order, case, dtype):
    # Further orders and the checks of accesses repeat the test; they need not do it as often.
    environment = os.environ.get
    again = environment("TILEWRIGHT_SIMT_ORDER", "1") != "1" or environment(
        "TILEWRIGHT_SIMT_CHECKED"
    )
    lengths = (17, 70) if MACHINE == "simt" else (37, 70)
    results = all_of({**case, "dtype": dtype, "lengths": lengths, "head_dim": 40}, device)
    torch.use_deterministic_algorithms(True)
    try:
        first = results()
        for _ in range(20 if again else 250):
            another_order()
            assert equal(results(), first)
    finally:
        torch.use_deterministic_algorithms(False)


@kernels
@pytest.mark.unchecked
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("heads", [(2, 4, 2), (1, 1, 1)])
@pytest.mark.parametrize("case", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_same_bits_for_any_number_of_threads(device, case, heads, dtype):
    lengths = (300, 500) if MACHINE == "cpu" else (33, 70)
    results = all_of({**case, "dtype": dtype, "heads": heads, "lengths": lengths}, device)
    first = threads(1, results)
    for count in (2, 3):
        assert equal(threads(count, results), first)


@kernels
@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_nan_in_keys_that_no_query_sees(device, dtype, softcap):
    q, k, v = (torch.randn(2, 2, 40, 16).to(dtype) for _ in range(3))
    padding = torch.ones(2, 1, 1, 40, dtype=torch.bool)
    padding[0, ..., 25:] = False
    padding[1, ..., :3] = False
    hidden = ~padding.reshape(2, 1, 40, 1)
    clean = {"query": q, "key": k.masked_fill(hidden, 0), "value": v.masked_fill(hidden, 0)}
    dirty = {"query": q, "key": k.masked_fill(hidden, torch.nan)}
    dirty["value"] = v.masked_fill(hidden, torch.nan)
    grad = torch.randn(q.shape)
    options = {"bias": padding.to(device), "softcap": softcap}
    expected = run(flash_attention, leaves(clean, device), options, grad, None)
    found = run(flash_attention, leaves(dirty, device), options, grad, None)
    assert equal([*found[:2], *found[2].values()], [*expected[:2], *expected[2].values()])
    assert all(x.isfinite().all() for x in found[2].values())
    # A floating mask of -inf hides as well.
    options["bias"] = torch.zeros(padding.shape).masked_fill(~padding, -torch.inf).to(device)
    found = run(flash_attention, leaves(dirty, device), options, grad, None)
    assert equal([*found[:2], *found[2].values()], [*expected[:2], *expected[2].values()])


@kernels
@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_outside_of_windows(device, dtype, softcap):
    """Seven queries at the upper left of forty keys see the first ones alone."""
    q = torch.randn(1, 2, 7, 16).to(dtype)
    k, v = (torch.randn(1, 2, 40, 16).to(dtype) for _ in range(2))
    for options, seen in (
        ({"causal": True, "top_left": True}, slice(0, 7)),
        ({"window_right": 5, "top_left": True}, slice(0, 12)),
        ({"window_left": 3}, slice(30, 40)),
    ):
        hidden = torch.ones(40, 1, dtype=torch.bool)
        hidden[seen] = False
        clean = {"query": q, "key": k.masked_fill(hidden, 0), "value": v.masked_fill(hidden, 0)}
        dirty = {"query": q, "key": k.masked_fill(hidden, torch.nan)}
        dirty["value"] = v.masked_fill(hidden, torch.nan)
        grad = torch.randn(q.shape)
        options["softcap"] = softcap
        expected = run(flash_attention, leaves(clean, device), options, grad, None)
        found = run(flash_attention, leaves(dirty, device), options, grad, None)
        assert equal([*found[:2], *found[2].values()], [*expected[:2], *expected[2].values()])


@kernels
@pytest.mark.no_launch
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "sizes",
    [(0, 2, 2, 5, 5), (1, 0, 0, 5, 5), (2, 4, 2, 0, 7), (2, 4, 2, 7, 0), (1, 2, 2, 0, 0)],
)
def test_empty(device, sizes, dtype):
    batch, heads, kv_heads, q_len, k_len = sizes
    tensors = {
        "query": torch.randn(batch, heads, q_len, 8).to(dtype),
        "key": torch.randn(batch, kv_heads, k_len, 8).to(dtype),
        "value": torch.randn(batch, kv_heads, k_len, 5).to(dtype),
        "bias": torch.randn(q_len, k_len),
        "sinks": torch.randn(heads),
    }
    assert_attention(flash_attention, tensors, {}, "both", device)
    del tensors["sinks"]
    assert_attention(flash_attention, tensors, {}, "both", device)


@kernels
def test_dropout_rate(device):
    """With values of one the output is the kept part of 1, in the mean."""
    q, k = torch.zeros(2, 4, 50, 8), torch.zeros(2, 4, 150, 8)
    v = torch.ones(2, 4, 150, 8)
    for p in (0.1, 0.5, 0.9):
        out, lse = flash_attention(*(x.to(device) for x in (q, k, v)), dropout_p=p)
        deviation = (p / (1 - p) / (2 * 4 * 50 * 150)) ** 0.5
        assert abs(out[..., 0].double().mean().item() - 1) < 4 * deviation
        torch.testing.assert_close(lse.cpu(), torch.full_like(lse, 150).log().cpu())


@kernels
def test_dropout_replays(device):
    q, k, v = (torch.randn(1, 2, 20, 16).to(device) for _ in range(3))
    state = torch.tensor([-7, 2**33 + 5]).to(device)  # any 64 bits; the low 32 of the offset count
    first = flash_attention(q, k, v, dropout_p=0.4, rng_state=state)[0]
    assert torch.equal(flash_attention(q, k, v, dropout_p=0.4, rng_state=state)[0], first)
    for other in ([-6, 2**33 + 5], [-7, 6]):
        moved = torch.tensor(other).to(device)
        assert not torch.equal(flash_attention(q, k, v, dropout_p=0.4, rng_state=moved)[0], first)
    low = torch.tensor([-7, 5]).to(device)
    assert torch.equal(flash_attention(q, k, v, dropout_p=0.4, rng_state=low)[0], first)
    # Without a state torch's generator decides.
    torch.manual_seed(3)
    drawn = flash_attention(q, k, v, dropout_p=0.4)[0]
    assert not torch.equal(flash_attention(q, k, v, dropout_p=0.4)[0], drawn)
    torch.manual_seed(3)
    assert torch.equal(flash_attention(q, k, v, dropout_p=0.4)[0], drawn)


@kernels
def test_backward_drops_what_forward_dropped(device):
    """Of dropout drawn from torch's generator the output is linear in the values, so its gradient
    says which probabilities were kept."""
    q, k, v = (torch.randn(1, 1, 9, 9, dtype=torch.float64).to(device) for _ in range(3))
    v = torch.eye(9, dtype=torch.float64).reshape(1, 1, 9, 9).to(device).requires_grad_()
    out, _ = flash_attention(q, k, v, dropout_p=0.5)  # the matrix of kept probabilities
    (grad,) = torch.autograd.grad(out, v, torch.ones_like(out))
    expected = out.detach().sum(2).unsqueeze(-1).expand_as(grad)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)
    assert (out == 0).any() and (out > 0).any()


def test_philox_of_the_reference():
    """The known answers of Random123."""
    words = reference.philox((0, 0, 0, 0), 0).tolist()
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    counter = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    words = reference.philox(counter, 0x299F31D0A4093822).tolist()
    assert words == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@kernels
def test_results_are_laid_out_as_queries(device):
    x = torch.randn(2, 7, 3, 16).to(device)  # (B, S, H, D)
    q = x.transpose(1, 2).requires_grad_()
    out, lse = flash_attention(q, q, q)
    assert out.transpose(1, 2).is_contiguous() and lse.is_contiguous()
    (grad,) = torch.autograd.grad(out.sum(), q)
    assert grad.transpose(1, 2).is_contiguous()
    assert torch.equal(flash_attention(*[q.contiguous()] * 3)[0], out)


@kernels
def test_broadcast_inputs(device):
    """Expanded keys and values have strides of 0; their gradients are those of copies."""
    q = torch.randn(2, 3, 10, 16)
    one = torch.randn(1, 1, 12, 16)
    tensors = {"query": q, "key": one.expand(2, 3, 12, 16), "value": one.expand(2, 3, 12, 16)}
    out, lse = flash_attention(*(x.to(device) for x in tensors.values()))
    expected = flash_attention(*(x.contiguous().to(device) for x in tensors.values()))
    assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])
    grad = torch.randn(1, 1, 1, 16).expand(2, 3, 10, 16)
    inputs = leaves({n: x.contiguous() for n, x in tensors.items()}, device)
    found = run(flash_attention, inputs, {}, grad, None)[2]
    again = run(flash_attention, inputs, {}, grad.contiguous(), None)[2]
    assert equal(found.values(), again.values())


@kernels
def test_sugar(device):
    q, k, v = (torch.randn(1, 2, 9, 16).to(device) for _ in range(3))
    out, lse = tilewright.flash_attention(q, k, v, causal=True, return_lse=True)
    expected = flash_attention(q, k, v, causal=True)
    assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])
    assert torch.equal(tilewright.flash_attention(q, k, v, causal=True), out)


@kernels
@pytest.mark.skipif(MACHINE == "cpu", reason="a promise of the CUDA code")
def test_nothing_synchronises(device):
    tensors, options = cases.make({**EVERYTHING, "lengths": (9, 17)})
    inputs, options = leaves(tensors, device), on(device, options)
    grad = torch.randn(2, 4, 9, 64)
    with NoSynchronisation():
        run(flash_attention, inputs, options, grad, None)
