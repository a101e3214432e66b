"""The slow, obvious reference of attention in fp64, with the matrix of scores, and the composition
that one would write in plain PyTorch in the inputs' own dtype.

Both take the operator's arguments and can be differentiated by autograd; a row that sees no key has
output 0 and gradients 0 in both.
"""

import math

import numpy
import torch

INFINITY = math.inf


def philox(counter, seed):
    """Philox 4x32-10 of Salmon et al. (SC 2011): four words of 32 bits for each counter.

    Args:
        counter: four integers or arrays that broadcast together.
        seed: 64 bits.
    """
    low = numpy.uint64(0xFFFFFFFF)
    half = numpy.uint64(32)
    c = [numpy.asarray(x, dtype=numpy.uint64) & low for x in counter]
    seed = seed & 0xFFFFFFFFFFFFFFFF
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * numpy.uint64(0xD2511F53), c[2] * numpy.uint64(0xCD9E8D57)
        c = [
            (b >> half) ^ c[1] ^ numpy.uint64(key[0]),
            b & low,
            (a >> half) ^ c[3] ^ numpy.uint64(key[1]),
            a & low,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return numpy.stack(numpy.broadcast_arrays(*c))


def dropout_keeps(rng_state, p, batch, heads, q_len, k_len, first_head=0):
    """(batch, heads, q_len, k_len): which probabilities dropout keeps, as attention_math.h has it.

    `first_head` counts the heads of the sequences before, where sequences are computed one by one.
    """
    seed, offset = rng_state.tolist()
    threshold = min(math.ceil(p * 2.0**32), 2**32 - 1)
    head = first_head + numpy.arange(batch * heads)[:, None, None]
    query = numpy.arange(q_len)[None, :, None]
    key = numpy.arange(k_len)[None, None, :]
    words = philox((key // 64 * 16 + key % 16, query, head, offset), seed)
    word = numpy.take_along_axis(
        words, numpy.broadcast_to(key // 16 % 4, words.shape[1:])[None], axis=0
    )[0]
    keeps = torch.from_numpy(word.astype(numpy.int64) >= threshold)
    return keeps.reshape(batch, heads, q_len, k_len)


def distance(q_len, k_len, top_left):
    """(q_len, k_len): i + o - j."""
    offset = 0 if top_left else k_len - q_len
    return torch.arange(q_len)[:, None] + offset - torch.arange(k_len)[None, :]


def window_keeps(q_len, k_len, causal, top_left, window_left, window_right):
    """(q_len, k_len): which keys each query may see."""
    d = distance(q_len, k_len, top_left)
    keeps = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        keeps &= d >= 0
    if window_left >= 0:
        keeps &= d <= window_left
    if window_right >= 0:
        keeps &= -d <= window_right
    return keeps


def expand_heads(tensor, heads):
    return tensor.repeat_interleave(heads // max(tensor.shape[1], 1), dim=1)


def scores(
    query,
    key,
    bias=None,
    alibi_slopes=None,
    *,
    causal=False,
    top_left=False,
    window_left=-1,
    window_right=-1,
    scale=None,
    softcap=0.0,
):
    """(B, H, Sq, Sk), -inf where a query does not see a key. Everything broadcasts and promotes."""
    heads, q_len, head_dim = query.shape[1:]
    k_len = key.shape[2]
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    s = (query @ expand_heads(key, heads).transpose(-1, -2)) * scale
    if softcap > 0:
        s = softcap * torch.tanh(s / softcap)
    if alibi_slopes is not None:
        slopes = alibi_slopes.reshape(-1, heads, 1, 1)
        s = s - slopes * distance(q_len, k_len, top_left).abs().to(s.dtype)
    if bias is not None:
        s = s.masked_fill(~bias, -INFINITY) if bias.dtype == torch.bool else s + bias
    keeps = window_keeps(q_len, k_len, causal, top_left, window_left, window_right)
    return s.masked_fill(~keeps, -INFINITY)


def attention(
    query,
    key,
    value,
    bias=None,
    alibi_slopes=None,
    sinks=None,
    *,
    dropout_p=0.0,
    rng_state=None,
    first_head=0,
    **options,
):
    """(out, lse) in fp64 by the definition in flash_attention.h."""
    doubles = [
        x.double() if x is not None and x.dtype != torch.bool else x
        for x in (query, key, value, bias, alibi_slopes, sinks)
    ]
    query, key, value, bias, alibi_slopes, sinks = doubles
    batch, heads, q_len = query.shape[:3]
    s = scores(query, key, bias, alibi_slopes, **options)
    sink = None if sinks is None else sinks.reshape(1, heads, 1, 1)
    # The shift cancels, so it needs no gradient; a row without keys is shifted by 0.
    shift = s.new_full((batch, heads, q_len, 1), -INFINITY)
    if s.shape[-1] > 0:
        shift = s.detach().amax(-1, keepdim=True)
    if sink is not None:
        shift = shift.maximum(sink.detach())
    shift = shift.masked_fill(shift == -INFINITY, 0)
    weight = torch.exp(s - shift)
    total = weight.sum(-1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink - shift)
    empty = total == 0
    total = total.masked_fill(empty, 1)
    probability = weight / total
    lse = (shift + total.log()).masked_fill(empty, -INFINITY).squeeze(-1)
    if dropout_p > 0:
        keeps = dropout_keeps(rng_state, dropout_p, batch, heads, q_len, key.shape[2], first_head)
        probability = probability * keeps / (1 - dropout_p)
    return probability @ expand_heads(value, heads), lse


def plain(
    query,
    key,
    value,
    bias=None,
    alibi_slopes=None,
    sinks=None,
    *,
    dropout_p=0.0,
    rng_state=None,
    first_head=0,
    **options,
):
    """The same as one writes it with torch.softmax, all of it in query's dtype."""
    batch, heads, q_len = query.shape[:3]
    bias, alibi_slopes, sinks = (
        x if x is None or x.dtype == torch.bool else x.to(query.dtype)
        for x in (bias, alibi_slopes, sinks)
    )
    s = scores(query, key, bias, alibi_slopes, **options)
    if sinks is not None:
        column = sinks.reshape(1, heads, 1, 1).expand(batch, heads, q_len, 1)
        s = torch.cat([s, column], -1)
    empty = (s == -INFINITY).all(-1, keepdim=True)
    s = s.masked_fill(empty, 0)
    probability = torch.softmax(s, -1).masked_fill(empty, 0)[..., : key.shape[2]]
    lse = torch.logsumexp(s, -1).masked_fill(empty.squeeze(-1), -INFINITY)
    if dropout_p > 0:
        keeps = dropout_keeps(rng_state, dropout_p, batch, heads, q_len, key.shape[2], first_head)
        probability = probability * keeps / (1 - dropout_p)
    return probability @ expand_heads(value, heads), lse


@torch.no_grad()
def gradient_terms(grad_out, grad_lse, tensors, options):
    """How large the terms are that gradients of query, key, ... (by name) are sums and differences
    of, and by what part of them they may err because lse is rounded, and P = exp(S - lse) with it.

    dS = P * (dP - D + dLSE) becomes P * (|dO| |V| + |D| + |dLSE|), and so on.
    """
    doubles = {n: x.double() if x.is_floating_point() else x for n, x in tensors.items()}
    query, key, value = (doubles[name] for name in ("query", "key", "value"))
    rest = dict(options)
    dropout = 1 / (1 - rest.pop("dropout_p", 0.0))
    rest.pop("rng_state", None)
    heads, head_dim = query.shape[1], query.shape[3]
    out, lse = attention(**doubles, **rest)
    s = scores(query, key, doubles.get("bias"), doubles.get("alibi_slopes"), **rest)
    p = torch.exp(s - lse.masked_fill(lse == -INFINITY, 0).unsqueeze(-1)) * dropout
    dlse = torch.zeros_like(lse) if grad_lse is None else grad_lse.double().abs()
    d = (torch.zeros_like(out) if grad_out is None else grad_out.double().abs()) * dropout
    per_row = (d * out.abs()).sum(-1) + dlse
    ds = p * (d @ expand_heads(value, heads).abs().transpose(-1, -2) + per_row.unsqueeze(-1))
    scale = rest.get("scale")
    scaled = ds * abs(1 / math.sqrt(head_dim) if scale is None else scale)
    far = distance(query.shape[2], key.shape[2], rest.get("top_left", False)).abs()
    terms = {
        "query": scaled @ expand_heads(key, heads).abs(),
        "key": scaled.transpose(-1, -2) @ query.abs(),
        "value": p.transpose(-1, -2) @ d,
        "alibi_slopes": (ds * far).sum((0, 2, 3)),
        "sinks": per_row.sum((0, 2)),
    }
    if "bias" in tensors and ds.numel():
        terms["bias"] = ds.sum_to_size(tensors["bias"].shape)
    digits = torch.finfo(
        torch.float64 if tensors["query"].dtype == torch.float64 else torch.float32
    ).eps
    finite = lse[lse.isfinite()].abs()
    part = 0.5 * digits * (finite.max().item() if finite.numel() else 0.0)
    terms = {name: x.max().item() for name, x in terms.items() if x.numel()}
    return terms, part
