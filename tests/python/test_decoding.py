"""Decoding: tokens appended to pages and attended there are the attention to the whole sequence."""

import pytest
import torch
from checks import assert_close_to_fp64
from conftest import DTYPES

import tilewright

kernels = pytest.mark.kernels


def plain_attention(query, key, value, options):
    """In query's dtype, of one sequence: (H, S, D), (Hk, Sk, D)."""
    heads, length, dim = query.shape
    k_len = key.shape[1]
    key, value = (x.repeat_interleave(heads // x.shape[0], 0) for x in (key, value))
    s = query @ key.transpose(1, 2) / dim**0.5
    if options.get("softcap", 0) > 0:
        s = options["softcap"] * torch.tanh(s / options["softcap"])
    center = torch.arange(length, device=query.device)[:, None] + k_len - length
    distance = center - torch.arange(k_len, device=query.device)
    if "alibi_slopes" in options:
        s = s - options["alibi_slopes"].to(s)[:, None, None] * distance.abs()
    seen = distance >= 0 if options.get("causal", True) else torch.ones_like(distance).bool()
    if options.get("window_left", -1) >= 0:
        seen = seen & (distance <= options["window_left"])
    s = s.masked_fill(~seen, -torch.inf)
    return s.softmax(-1).nan_to_num(0) @ value, s.logsumexp(-1)


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options,page,steps,key_heads",
    [
        ({}, 16, (5, 1, 1), 2),
        ({"causal": False, "softcap": 2.0}, 1, (3, 2), 4),
        ({"window_left": 6, "alibi_slopes": 4}, 7, (9, 3, 1, 1), 1),
    ],
)
def test_decoding_step_by_step(device, dtype, options, page, steps, key_heads):
    """Sequences of different lengths, the last of which has nothing at first."""
    options = dict(options)
    if "alibi_slopes" in options:
        options["alibi_slopes"] = torch.rand(options["alibi_slopes"], device=device)
    starts, heads, dim, value_dim = [11, 4, 0], 4, 16, 8
    max_pages = (max(starts) + sum(steps) - 1) // page + 1
    pages = 3 * max_pages + 2
    caches = [
        torch.full((pages, page, key_heads, d), torch.nan, device=device, dtype=dtype)
        for d in (dim, value_dim)
    ]
    table = torch.randperm(pages)[: 3 * max_pages].view(3, max_pages).int().to(device)
    seen = [
        [torch.empty(key_heads, 0, d, device=device).to(dtype) for d in (dim, value_dim)]
        for _ in starts
    ]
    lengths = torch.tensor([0, 0, 0], dtype=torch.int32, device=device)
    # What each sequence has before the first step, appended one sequence at a time.
    for b, start in enumerate(starts):
        rows = [
            torch.randn(1, key_heads, start, d, device=device).to(dtype) for d in (dim, value_dim)
        ]
        tilewright.append_kv_(*caches, *rows, table[b : b + 1], lengths[b : b + 1])
        seen[b] = [torch.cat([old, new[0]], 1) for old, new in zip(seen[b], rows, strict=True)]
        lengths[b] = start
    for step in steps:
        query = torch.randn(3, heads, step, dim, device=device).to(dtype)
        rows = [
            torch.randn(3, key_heads, step, d, device=device).to(dtype) for d in (dim, value_dim)
        ]
        tilewright.append_kv_(*caches, *rows, table, lengths)
        lengths += step
        out, lse = tilewright.flash_attention_paged(
            query, *caches, table, lengths, return_lse=True, **options
        )
        for b in range(3):
            seen[b] = [torch.cat([old, x[b]], 1) for old, x in zip(seen[b], rows, strict=True)]
            plain = plain_attention(query[b], *seen[b], options)
            exact = plain_attention(query[b].double(), *(x.double() for x in seen[b]), options)
            assert_close_to_fp64(out[b], plain[0], exact[0])
            assert_close_to_fp64(lse[b], plain[1], exact[1])
