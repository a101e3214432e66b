"""The Python functions of attention: the operators' results, eager, scripted, exported and
compiled."""

import pytest
import torch
from checks import compile_and_run, export_and_run, script_round_trip

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def dense_inputs(device):
    shapes = [(2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 3), (4, 5, 7), (4,), (4,)]
    return [torch.randn(s, device=device) for s in shapes]


def packed_inputs(device):
    tensors = [torch.randn(s, device=device) for s in ((6, 4, 8), (9, 2, 8), (9, 2, 3))]
    offsets = [[0, 2, 6], [0, 5, 9]]
    return [*tensors, *(torch.tensor(x, dtype=torch.int32, device=device) for x in offsets)]


def paged_inputs(device):
    tensors = [torch.randn(s, device=device) for s in ((2, 4, 3, 8), (6, 5, 2, 8), (6, 5, 2, 3))]
    numbers = [[[4, 0, 2], [3, 1, 5]], [12, 4]]
    return [*tensors, *(torch.tensor(x, dtype=torch.int32, device=device) for x in numbers)]


# TorchScript wants every argument's type, and one result.
def dense(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    slopes: torch.Tensor,
    sinks: torch.Tensor,
) -> torch.Tensor:
    return tilewright.flash_attention(
        query, key, value, bias, slopes, sinks, causal=True, window_left=5, scale=0.4, softcap=3.0
    )


def packed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
) -> torch.Tensor:
    return tilewright.flash_attention_varlen(
        query, key, value, cu_seqlens_q, cu_seqlens_k, 4, 5, top_left=True, window_right=2
    )


def paged(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    cache_seqlens: torch.Tensor,
) -> torch.Tensor:
    return tilewright.flash_attention_paged(
        query, key_cache, value_cache, block_table, cache_seqlens, window_left=6, softcap=2.0
    )


CASES = [(dense, dense_inputs), (packed, packed_inputs), (paged, paged_inputs)]


@kernels
@pytest.mark.parametrize("function,inputs", CASES)
@pytest.mark.parametrize("run", [script_round_trip, export_and_run, compile_and_run])
def test_programs(device, function, inputs, run):
    args = inputs(device)
    assert torch.equal(run(function, *args), function(*args))


@kernels
def test_results_are_the_operators(device):
    args = dense_inputs(device)
    options = {"causal": True, "window_left": 5, "scale": 0.4, "softcap": 3.0}
    expected = ops.flash_attention(*args, **options)
    assert torch.equal(dense(*args), expected[0])
    pair = tilewright.flash_attention(*args, **options, return_lse=True)
    assert all(torch.equal(a, b) for a, b in zip(pair, expected, strict=True))

    args = packed_inputs(device)
    options = {"top_left": True, "window_right": 2}
    expected = ops.flash_attention_varlen(*args, 4, 5, **options)
    assert torch.equal(packed(*args), expected[0])
    pair = tilewright.flash_attention_varlen(*args, 4, 5, **options, return_lse=True)
    assert all(torch.equal(a, b) for a, b in zip(pair, expected, strict=True))

    args = paged_inputs(device)
    options = {"window_left": 6, "softcap": 2.0}
    expected = ops.flash_attention_paged(*args, **options)
    assert torch.equal(paged(*args), expected[0])
    pair = tilewright.flash_attention_paged(*args, **options, return_lse=True)
    assert all(torch.equal(a, b) for a, b in zip(pair, expected, strict=True))


@kernels
def test_dropout_is_drawn_from_the_generator(device):
    query, key, value = dense_inputs(device)[:3]
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(tilewright.flash_attention(query, key, value, dropout_p=0.5))
    results.append(tilewright.flash_attention(query, key, value, dropout_p=0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])
    assert not torch.equal(results[2], results[3])


@kernels
def test_the_results_have_the_memory_order_of_query(device):
    query, key, value = dense_inputs(device)[:3]
    query = query.transpose(1, 2).contiguous().transpose(1, 2)  # (B, S, H, D) in memory
    assert tilewright.flash_attention(query, key, value).transpose(1, 2).is_contiguous()
    query = query.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)  # (S, B, H, D)
    assert tilewright.flash_attention(query, key, value).permute(2, 0, 1, 3).is_contiguous()
    expanded = query[:, :1].expand(-1, 4, -1, -1)
    out = tilewright.flash_attention(expanded, key, value)
    assert out.stride(-1) == 1
    torch.testing.assert_close(out, tilewright.flash_attention(expanded.contiguous(), key, value))


def with_lse(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return tilewright.flash_attention(query, key, value, return_lse=True)


def test_no_pair_in_scripts():
    with pytest.raises(torch.jit.Error, match=r"call the operator in torch\.ops.tilewright"):
        torch.jit.script(with_lse)(*dense_inputs("cpu")[:3])
