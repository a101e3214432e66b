"""flash_attention_varlen against a loop over the sequences: all options, sequences of length zero,
gradients."""

import itertools

import pytest
import reference_attention as reference
import torch
from attention_checks import assert_lse, leaves, on, run
from checks import assert_close_to_fp64, threads
from conftest import MACHINE
from torch.autograd import gradcheck, gradgradcheck

import tilewright

varlen = torch.ops.tilewright.flash_attention_varlen
kernels = pytest.mark.kernels

LENGTHS = {
    "mixed": ([17, 0, 40, 1, 70, 5], [17, 9, 0, 33, 70, 40]),
    "equal": ([30, 30], [30, 30]),
    "one": ([33], [70]),
    "none": ([], []),
    "zeros": ([0, 0], [0, 0]),
}
OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "top left": {"causal": True, "top_left": True, "window_left": 11},
    "window": {"window_left": 9, "window_right": 4, "scale": -0.3},
    "softcap, alibi": {"softcap": 1.5, "alibi": "(H,)", "causal": True},
    "alibi": {"alibi": "(B, H)", "scale": 0.2},
    "dropout": {"dropout_p": 0.3, "causal": True, "alibi": "(H,)"},
}


def offsets(lengths):
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def make(lengths, options, dtype, heads=(4, 2), head_dim=40, value_dim=24):
    """(tensors, arguments) of a packed call, on the CPU."""
    q_lens, k_lens = LENGTHS[lengths]
    tensors = {
        "query": torch.randn(sum(q_lens), heads[0], head_dim).to(dtype),
        "key": torch.randn(sum(k_lens), heads[1], head_dim).to(dtype),
        "value": torch.randn(sum(k_lens), heads[1], value_dim).to(dtype),
    }
    given = dict(OPTIONS[options])
    alibi = given.pop("alibi", None)
    if alibi:
        shape = (heads[0],) if alibi == "(H,)" else (len(q_lens), heads[0])
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        tensors["alibi_slopes"] = torch.rand(shape, dtype=wide) * 0.2
    if "dropout_p" in given:
        given["rng_state"] = torch.tensor([2**40 + 7, 3])
    given |= {"cu_seqlens_q": offsets(q_lens), "cu_seqlens_k": offsets(k_lens)}
    given |= {"max_seqlen_q": max(q_lens, default=0), "max_seqlen_k": max(k_lens, default=0)}
    return tensors, given


def sequences(query, key, value, alibi_slopes=None, **given):
    """(tensors, options, rows of query) of each sequence, which is a batch of one."""
    starts_q, starts_k = (given.pop(n).tolist() for n in ("cu_seqlens_q", "cu_seqlens_k"))
    del given["max_seqlen_q"], given["max_seqlen_k"]
    pairs = zip(itertools.pairwise(starts_q), itertools.pairwise(starts_k), strict=True)
    for b, ((q0, q1), (k0, k1)) in enumerate(pairs):
        parts = (x.transpose(0, 1)[None] for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
        tensors = dict(zip(("query", "key", "value"), parts, strict=True))
        if alibi_slopes is not None:
            tensors["alibi_slopes"] = alibi_slopes[b] if alibi_slopes.dim() == 2 else alibi_slopes
        yield tensors, given, slice(q0, q1)


def loop(attention):
    """flash_attention_varlen as a loop over sequences."""

    def packed(query, key, value, alibi_slopes=None, **given):
        heads = query.shape[1]
        nothing = query[:0, :, :1]
        outs, lses = [nothing.expand(0, heads, value.shape[2])], [nothing[..., 0].T]
        parts = sequences(query, key, value, alibi_slopes, **given)
        for b, (tensors, options, _) in enumerate(parts):
            if options.get("dropout_p"):
                options["first_head"] = b * heads
            out, lse = attention(**tensors, **options)
            outs.append(out[0].transpose(0, 1))
            lses.append(lse[0])
        return torch.cat(outs), torch.cat(lses, 1)

    return packed


def gradient_terms(grad_out, grad_lse, tensors, given):
    """reference.gradient_terms of a packed call: slopes sum over sequences, others lie in one."""
    terms, part = {}, 0.0
    for parts, options, rows in sequences(**tensors, **given):
        grads = grad_out[rows].transpose(0, 1)[None], grad_lse[None, :, rows]
        found, of_lse = reference.gradient_terms(*grads, parts, options)
        for name in tensors.keys() & found.keys():
            shared = name == "alibi_slopes" and tensors[name].dim() == 1
            before = terms.get(name, 0.0)
            terms[name] = before + found[name] if shared else max(before, found[name])
        part = max(part, of_lse)
    return terms, part


def compare(lengths, options, dtype, device, **sizes):
    tensors, given = make(lengths, options, dtype, **sizes)
    rows, heads, value_dim = *tensors["query"].shape[:2], tensors["value"].shape[2]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    grads = torch.randn(rows, heads, value_dim).to(dtype), torch.randn(heads, rows, dtype=wide)
    out, lse, found = run(varlen, leaves(tensors, device), on(device, given), *grads)
    exact = leaves(tensors, dtype=torch.float64)
    expected_out, expected_lse, expected = run(loop(reference.attention), exact, given, *grads)
    plain_out, plain_lse, plain = run(loop(reference.plain), leaves(tensors), given, *grads)
    assert out.dtype == dtype and lse.dtype == wide
    assert_close_to_fp64(out.cpu(), plain_out, expected_out)
    assert_lse(lse.cpu(), plain_lse, expected_lse)
    terms, part = gradient_terms(*grads, tensors, given)
    for name, grad in found.items():
        assert_close_to_fp64(
            *(grad.cpu(), plain[name], expected[name]),
            **{"gradient": True, "terms": terms.get(name, 0.0), "part": part},
        )


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", OPTIONS)
def test_options(device, options, dtype):
    compare("mixed", options, dtype, device)


@kernels
@pytest.mark.parametrize("lengths", ["equal", "one"])
@pytest.mark.parametrize("sizes", [((2, 2), 64, 64), ((3, 1), 5, 1), ((2, 1), 128, 256)], ids=str)
def test_sizes(device, lengths, sizes):
    for dtype in (torch.float32, torch.bfloat16):
        heads, head_dim, value_dim = sizes
        compare(
            *(lengths, "causal", dtype, device),
            **{"heads": heads, "head_dim": head_dim, "value_dim": value_dim},
        )


@kernels
@pytest.mark.no_launch
@pytest.mark.parametrize("lengths", ["none", "zeros"])
def test_nothing(device, lengths):
    compare(lengths, "softcap, alibi", torch.float32, device)


@kernels
def test_the_same_as_dense(device):
    """Sequences of one length are a batch, dropout included."""
    q, k, v = (torch.randn(3, 4, 21, 16).to(device) for _ in range(3))
    packed = [x.transpose(1, 2).reshape(63, 4, 16) for x in (q, k, v)]
    starts = offsets([21, 21, 21]).to(device)
    options = {"causal": True, "dropout_p": 0.4, "rng_state": torch.tensor([5, 6]).to(device)}
    out, lse = varlen(*packed, starts, starts, 21, 21, **options)
    dense_out, dense_lse = torch.ops.tilewright.flash_attention(q, k, v, **options)
    torch.testing.assert_close(out.reshape(3, 21, 4, 16).transpose(1, 2), dense_out)
    torch.testing.assert_close(lse.reshape(4, 3, 21).transpose(0, 1), dense_lse)
    out = tilewright.flash_attention_varlen(*packed, starts, starts, 21, 21, causal=True)
    assert torch.equal(out, varlen(*packed, starts, starts, 21, 21, causal=True)[0])


@kernels
def test_views_of_one_projection(device):
    """query, key and value as slices of (T, 3, H, D), which are not contiguous."""
    x = torch.randn(40, 3, 2, 16).to(device)
    starts = offsets([15, 25]).to(device)
    out, lse = varlen(*x.unbind(1), starts, starts, 25, 25)
    copies = [y.contiguous() for y in x.unbind(1)]
    expected = varlen(*copies, starts, starts, 25, 25)
    assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])


@kernels
def test_rows_beyond_the_last_sequence_do_not_matter(device):
    """Padding at the end of the pack belongs to no sequence: NaN there reaches nothing."""
    tensors, given = make("mixed", "causal", torch.float32)
    grad = torch.randn(133, 4, 24)
    expected = run(varlen, leaves(tensors, device), on(device, given), grad, None)
    more = {n: torch.cat([x, x.new_full((7, *x.shape[1:]), torch.nan)]) for n, x in tensors.items()}
    longer = torch.cat([grad, torch.randn(7, 4, 24)])
    found = run(varlen, leaves(more, device), on(device, given), longer, None)
    assert torch.equal(found[0][:133], expected[0])
    for name, value in expected[2].items():
        assert torch.equal(found[2][name][: len(value)], value), name
        assert not found[2][name][len(value) :].any(), name


@kernels
@pytest.mark.unchecked
def test_same_bits_again_and_for_any_number_of_threads(device, another_order):
    for dtype in (torch.float32, torch.bfloat16):
        tensors, given = make("mixed", "dropout", dtype)
        inputs, given = leaves(tensors, device), on(device, given)
        grads = torch.randn(133, 4, 24).to(dtype), torch.randn(4, 133)

        def results(inputs=inputs, given=given, grads=grads):
            another_order()
            out, lse, found = run(varlen, inputs, given, *grads)
            return [out, lse, *found.values()]

        torch.use_deterministic_algorithms(True)
        first = threads(1, results)
        for count in [2, 3] + [2] * (50 if MACHINE != "simt" else 3):
            again = threads(count, results)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        torch.use_deterministic_algorithms(False)


@kernels
@pytest.mark.unchecked
@pytest.mark.parametrize("options", ["causal", "softcap, alibi", "dropout"])
def test_gradcheck(device, options):
    q_lens, k_lens = [3, 0, 2], [4, 2, 0]
    _, given = make("one", options, torch.float64)
    given |= {"cu_seqlens_q": offsets(q_lens), "cu_seqlens_k": offsets(k_lens)}
    given |= {"max_seqlen_q": 3, "max_seqlen_k": 4}
    given = on(device, given)
    sizes = [(5, 2, 3), (6, 1, 3), (6, 1, 2)]
    inputs = [torch.randn(s, dtype=torch.float64).to(device).requires_grad_() for s in sizes]
    if "alibi" in OPTIONS[options]:
        inputs.append((torch.rand(2, dtype=torch.float64) * 0.2).to(device).requires_grad_())

    def both(query, key, value, alibi_slopes=None):
        out, lse = varlen(query, key, value, alibi_slopes=alibi_slopes, **given)
        return out, lse.masked_fill(lse == -torch.inf, 0)

    assert gradcheck(both, inputs)
    assert gradgradcheck(both, inputs)
