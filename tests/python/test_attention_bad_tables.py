"""Packed sequences, pages and appended keys on input that does not fit: the message for each
mistake; what only data tells is an error on the CPU, and harmless on CUDA."""

import pytest
import torch
from attention_bad_input import OPTIONS, offsets, on, packed_args, paged_args, refused, zeros

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
no_launch = pytest.mark.no_launch


@kernels
@no_launch
@pytest.mark.parametrize(
    "change,message",
    [
        ({"query": zeros(2, 4, 3, 8)}, r"query must have shape \(T, H, D\), got \(2, 4, 3, 8\)"),
        ({"key": zeros(9, 8)}, r"key must have shape \(Tk, Hk, D\), got \(9, 8\)"),
        ({"value": zeros(9)}, r"value must have shape \(Tk, Hk, Dv\), got \(9,\)"),
        ({"key": zeros(9, 3, 8)}, r"the heads of query \(4\) must be a multiple of"),
        (
            {"value": zeros(8, 2, 3)},
            r"value must have shape \(Tk, Hk, Dv\) = \(9, 2, 3\), got \(8,",
        ),
        ({"key": zeros(9, 2, 7)}, "the last dimension of key must be that of query, 8"),
        (
            {"value": zeros(9, 2, 3).half()},
            r"value must have the dtype of query \(Float\), got Half",
        ),
        ({"cu_seqlens_q": zeros(3)}, "cu_seqlens_q must be int32, got float32"),
        ({"cu_seqlens_k": offsets(0, 5, 9).long()}, "cu_seqlens_k must be int32, got int64"),
        ({"cu_seqlens_q": offsets()}, r"cu_seqlens_q must have shape \(B \+ 1,\), got \(0,\)"),
        (
            {"cu_seqlens_k": offsets(0, 5, 9)[None]},
            r"cu_seqlens_k must have shape \(B \+ 1,\), got",
        ),
        (
            {"cu_seqlens_k": offsets(0, 9)},
            r"cu_seqlens_k must have the shape of cu_seqlens_q, \(3,",
        ),
        (
            {"cu_seqlens_q": offsets(0, 2, 6).to("meta")},
            "cu_seqlens_q must be on the device of que",
        ),
        ({"max_seqlen_q": -1}, "max_seqlen_q must not be negative, got -1"),
        ({"max_seqlen_k": -2}, "max_seqlen_k must not be negative, got -2"),
        *OPTIONS,
    ],
)
def test_flash_attention_varlen(device, change, message):
    refused(device, "flash_attention_varlen", message, on(device, packed_args() | change))


@kernels
@pytest.mark.parametrize(
    "change,message",
    [
        ({"cu_seqlens_q": offsets(1, 2, 6)}, "cu_seqlens_q must start at 0, got 1"),
        ({"cu_seqlens_k": offsets(-1, 2, 6)}, "cu_seqlens_k must start at 0, got -1"),
        (
            {"cu_seqlens_q": offsets(0, 4, 3)},
            "cu_seqlens_q must not decrease, got 4 and then 3 at 2",
        ),
        (
            {"cu_seqlens_k": offsets(0, 5, 10)},
            "cu_seqlens_k must end within the 9 packed rows, got",
        ),
        (
            {"max_seqlen_q": 3},
            "cu_seqlens_q must not hold a sequence longer than the given maximum 3",
        ),
        (
            {"max_seqlen_k": 4},
            "cu_seqlens_k must not hold a sequence longer than .* 4, got length 5",
        ),
    ],
)
def test_offsets_that_lie(device, data_raises, change, message):
    args = on(device, packed_args() | change)
    if data_raises:
        with pytest.raises(RuntimeError, match="tilewright::flash_attention_varlen: " + message):
            ops.flash_attention_varlen(**args)
        return
    for name in ("query", "key", "value"):
        args[name] = torch.randn_like(args[name]).requires_grad_()
    out, lse = ops.flash_attention_varlen(**args)
    out.sum().backward()
    for tensor in (out, *(args[name].grad for name in ("query", "key", "value"))):
        assert tensor.isfinite().all()
    assert not lse.isnan().any()


PAGES = [
    ({"key_cache": zeros(6, 5, 8)}, r"key_cache must have shape \(pages, page, Hk, D\), got \(6, "),
    ({"value_cache": zeros(3)}, r"value_cache must have shape \(pages, page, Hk, Dv\), got \(3,\)"),
    ({"key_cache": zeros(6, 0, 2, 8)}, "key_cache must have pages of at least one row, got "),
    (
        {"value_cache": zeros(5, 5, 2, 3)},
        r"value_cache must have shape .* = \(6, 5, 2, 3\), got \(",
    ),
    (
        {"value_cache": zeros(6, 4, 2, 3)},
        r"value_cache must have shape .* = \(6, 5, 2, 3\), got \(",
    ),
    (
        {"value_cache": zeros(6, 5, 1, 3)},
        r"value_cache must have shape .* = \(6, 5, 2, 3\), got \(",
    ),
    (
        {"block_table": offsets(0, 1)},
        r"block_table must have shape \(B, max_pages\) with B = 2, got",
    ),
    ({"block_table": offsets(0, 1)[None]}, r"block_table must have shape .* B = 2, got \(1, 2\)"),
    ({"block_table": zeros(2, 3)}, "block_table must be int32, got float32"),
    ({"block_table": offsets(0, 1)[:, None].to("meta")}, "block_table must be on the device of "),
    (
        {"cache_seqlens": offsets(1, 2, 3)},
        r"cache_seqlens must have shape \(B,\) = \(2,\), got \(3,",
    ),
    ({"cache_seqlens": offsets(12, 4).long()}, "cache_seqlens must be int32, got int64"),
    ({"cache_seqlens": offsets(12, 4).to("meta")}, "cache_seqlens must be on the device of "),
]


@kernels
@no_launch
@pytest.mark.parametrize(
    "change,message",
    [
        ({"query": zeros(4, 3, 8)}, r"query must have shape \(B, H, S, D\), got \(4, 3, 8\)"),
        ({"query": zeros(2, 3, 3, 8)}, r"the heads of query \(3\) .* the heads of key_cache \(2\)"),
        ({"query": zeros(2, 4, 3, 7)}, "the last dimension of key_cache must be that of query, 7"),
        (
            {"query": zeros(2, 4, 3, 8).half()},
            r"key_cache must have the dtype of query \(Half\), got",
        ),
        (
            {"value_cache": zeros(6, 5, 2, 3).half()},
            r"value_cache must have the dtype of query \(Fl",
        ),
        *PAGES,
        *(x for x in OPTIONS if not x[0].keys() & {"dropout_p", "window_right"}),
    ],
)
def test_flash_attention_paged(device, change, message):
    refused(device, "flash_attention_paged", message, on(device, paged_args() | change))


@kernels
@pytest.mark.parametrize(
    "change,message",
    [
        ({"cache_seqlens": offsets(-1, 4)}, r"cache_seqlens\[0\] must not be negative, got -1"),
        (
            {"cache_seqlens": offsets(3, 16)},
            r"block_table has room for 15 keys \(3 pages of 5\), too",
        ),
        (
            {"block_table": torch.tensor([[0, 1, 6], [3, 4, 5]], dtype=torch.int32)},
            r"block_table\[0\]\[2\] must lie in \[0, 6\), got 6",
        ),
        (
            {"block_table": torch.tensor([[0, 1, 2], [-1, 9, 9]], dtype=torch.int32)},
            r"block_table\[1\]\[0\] must lie in \[0, 6\), got -1",
        ),
    ],
)
def test_tables_that_lie(device, data_raises, change, message):
    args = on(device, paged_args() | change)
    if data_raises:
        with pytest.raises(RuntimeError, match="tilewright::flash_attention_paged: " + message):
            ops.flash_attention_paged(**args)
        return
    for name in ("query", "key_cache", "value_cache"):
        args[name] = torch.randn_like(args[name])
    out, lse = ops.flash_attention_paged(**args)
    assert out.isfinite().all()
    assert not lse.isnan().any()


@kernels
@no_launch
@pytest.mark.parametrize(
    "change,message",
    [
        ({"key": zeros(2, 3, 8)}, r"key must have shape \(B, Hk, S, D\), got \(2, 3, 8\)"),
        ({"value": zeros(2, 3)}, r"value must have shape \(B, Hk, S, Dv\), got \(2, 3\)"),
        ({"key": zeros(2, 4, 3, 8)}, r"key must have shape \(B, Hk, S, D\) = \(2, 2, 3, 8\), got "),
        ({"key": zeros(2, 2, 3, 9)}, r"key must have shape \(B, Hk, S, D\) = \(2, 2, 3, 8\), got "),
        (
            {"value": zeros(2, 2, 4, 3)},
            r"value must have shape .* = \(2, 2, 3, 3\), got \(2, 2, 4,",
        ),
        (
            {"value": zeros(1, 2, 3, 3)},
            r"value must have shape .* = \(2, 2, 3, 3\), got \(1, 2, 3,",
        ),
        (
            {"key": zeros(2, 2, 3, 8).half()},
            r"key must have the dtype of key_cache \(Float\), got H",
        ),
        ({"value_cache": zeros(6, 5, 2, 3).half()}, "value_cache must have the dtype of key_cache"),
        ({"key": zeros(2, 2, 3, 8, device="meta")}, "key must be on the device of key_cache"),
        ({"key_cache": zeros(6, 5, 2, 8, dtype=torch.int8)}, "key_cache must be float64, .* got C"),
        *PAGES,
    ],
)
def test_append_kv(device, change, message):
    args = paged_args() | {"key": zeros(2, 2, 3, 8), "value": zeros(2, 2, 3, 3)}
    del args["query"]
    refused(device, "append_kv_", message, on(device, args | change))


@kernels
@no_launch
@pytest.mark.parametrize("name", ["query", "key_cache", "value_cache", "alibi_slopes"])
def test_decoding_refuses_gradients(device, name):
    args = on(device, paged_args() | {"alibi_slopes": zeros(4)})
    args[name].requires_grad_()
    message = f"flash_attention_paged: {name} requires grad, but decoding has no backward; call it"
    with pytest.raises(RuntimeError, match=message):
        ops.flash_attention_paged(**args)
