"""Attention as loops written from the definition, and dropout by Philox with Python's integers:
what the composite of ATen operators is held against. Differentiable, and slow."""

import itertools
import math

import torch

WORD = 0xFFFFFFFF


def philox(counter, key):
    """Philox 4x32-10 (Salmon et al., SC 2011)."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c


def kept_by_dropout(rng_state, dropout_p, head, i, j):
    """Whether dropout keeps the probability of query i at key j; heads count over the batch."""
    seed, offset = (int(x) for x in rng_state)
    counter = j // 64 * 16 + j % 16
    words = philox((counter, i, head, offset & WORD), (seed & WORD, seed >> 32 & WORD))
    return words[j // 16 % 4] >= math.ceil(dropout_p * 2**32)


def by_definition(
    query,
    key,
    value,
    bias=None,
    slopes=None,
    sinks=None,
    *,
    causal=False,
    top_left=False,
    window_left=-1,
    window_right=-1,
    scale=None,
    softcap=0.0,
    dropout_p=0.0,
    rng_state=None,
):
    """Attention query by query and key by key; what a query does not see is never touched."""
    (batch, heads, q_len, dim), (key_heads, k_len) = query.shape, key.shape[1:3]
    scale = 1 / math.sqrt(dim) if scale is None else scale
    offset = 0 if top_left else k_len - q_len
    if bias is not None:
        bias = bias.expand(batch, heads, q_len, k_len)
    outs, lses = [], []
    for b, h, i in itertools.product(range(batch), range(heads), range(q_len)):
        kv = h // (heads // key_heads)
        terms, values = [], []
        for j in range(k_len):
            if causal and j > i + offset:
                continue
            if window_left >= 0 and j < i + offset - window_left:
                continue
            if window_right >= 0 and j > i + offset + window_right:
                continue
            if bias is not None and (bias[b, h, i, j] in (False, -math.inf)):
                continue
            s = scale * (query[b, h, i] * key[b, kv, j]).sum()
            if softcap > 0:
                s = softcap * torch.tanh(s / softcap)
            if slopes is not None:
                slope = slopes[h] if slopes.dim() == 1 else slopes[b, h]
                s = s - slope * abs(i + offset - j)
            if bias is not None and bias.dtype != torch.bool:
                s = s + bias[b, h, i, j]
            terms.append(s)
            factor = 1.0
            if dropout_p > 0:
                kept = kept_by_dropout(rng_state, dropout_p, b * heads + h, i, j)
                factor = kept / (1 - dropout_p)
            values.append(factor * value[b, kv, j])
        denominator = terms + ([] if sinks is None else [sinks[h]])
        if denominator:
            lse = torch.logsumexp(torch.stack(denominator), 0)
        else:
            lse = torch.full((), -math.inf, dtype=query.dtype)
        out = torch.zeros(value.shape[-1], dtype=query.dtype)
        for s, v in zip(terms, values, strict=True):
            out = out + torch.exp(s - lse) * v
        outs.append(out)
        lses.append(lse)
    if not outs:
        empty = query.new_zeros(batch, heads, q_len, value.shape[-1])
        return empty, empty.sum(-1)
    out = torch.stack(outs).reshape(batch, heads, q_len, -1)
    return out, torch.stack(lses).reshape(batch, heads, q_len)


def sequences_apart(query, key, value, cu_q, cu_k, slopes, options):
    """Packed attention as a loop over sequences, by the definition; dropout is told the batch by
    rows of other sequences that are there and then thrown away."""
    outs, lses = [], []
    for b in range(len(cu_q) - 1):
        q = query[cu_q[b] : cu_q[b + 1]].transpose(0, 1)
        k, v = (x[cu_k[b] : cu_k[b + 1]].transpose(0, 1) for x in (key, value))
        q, k, v = (x.expand(b + 1, *x.shape) for x in (q, k, v))
        own = slopes
        if slopes is not None and slopes.dim() == 2:
            own = slopes[b].expand(b + 1, -1)
        out, lse = by_definition(q, k, v, slopes=own, **options)
        outs.append(out[b].transpose(0, 1))
        lses.append(lse[b])
    return torch.cat(outs), torch.cat(lses, 1)
