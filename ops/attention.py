"""Attention: argument sugar over ``torch.ops.tilewright``.

The functions can be used inside ``torch.jit.script``, ``torch.compile`` and ``torch.export``. The
operators themselves, ``torch.ops.tilewright.flash_attention`` and its like, always return the
output and the log-sum-exp; a scripted function that needs both calls those. Options are best given
by keyword: TorchScript, which takes no keyword-only arguments, is why they need not be.
"""

from typing import Optional, Tuple  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor

__all__ = [
    "append_kv_",
    "flash_attention",
    "flash_attention_paged",
    "flash_attention_varlen",
    "merge_attention",
]


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Optional[Tensor] = None,  # noqa: UP045
    alibi_slopes: Optional[Tensor] = None,  # noqa: UP045
    sinks: Optional[Tensor] = None,  # noqa: UP045
    causal: bool = False,
    top_left: bool = False,
    window_left: int = -1,
    window_right: int = -1,
    scale: Optional[float] = None,  # noqa: UP045
    softcap: float = 0.0,
    dropout_p: float = 0.0,
    rng_state: Optional[Tensor] = None,  # noqa: UP045
    return_lse: bool = False,
) -> Tensor:
    """Attention that never stores the matrix of scores (FlashAttention-2, arXiv:2307.08691).

    The scores of query i and key j, in this order: ``s = scale * q.k``; with ``softcap > 0``
    ``s = softcap * tanh(s / softcap)``; ``s -= slope * |i + o - j|`` with ``o = Sk - Sq`` (0 with
    ``top_left``); ``s += bias``; and -inf outside the window. The output is softmax(s) value, after
    dropout of probabilities.

    Args:
        query: (B, H, Sq, D); float64, float32, float16 or bfloat16. Any strides whose last is 1
            are taken as they are, so ``x.transpose(1, 2)`` of (B, S, H, D) costs no copy, and the
            output has query's memory order.
        key: (B, Hk, Sk, D), of query's dtype; H a multiple of Hk (query head h uses key head
            ``h // (H // Hk)``).
        value: (B, Hk, Sk, Dv); D and Dv from 1 to 256.
        bias: broadcasts to (B, H, Sq, Sk); bool (True keeps), query's dtype or float32.
        alibi_slopes: (H,) or (B, H), floating (ALiBi, arXiv:2108.12409).
        sinks: (H,), floating; a score that enters only the denominator (arXiv:2309.17453).
        causal: query i sees keys up to ``i + o``.
        top_left: align the windows' upper left corners, as PyTorch's ``is_causal`` does, in place
            of the lower right ones.
        window_left, window_right: query i sees keys from ``i + o - window_left`` to
            ``i + o + window_right``; -1 is unlimited.
        scale: 1 / sqrt(D) where not given.
        softcap: 0 is none.
        dropout_p: in [0, 1).
        rng_state: (2,) int64 on query's device, seed and offset of dropout; drawn from torch's
            generator where not given. The same state gives the same mask on every machine.
        return_lse: also return the log-sum-exp. Not inside ``torch.jit.script``, where a function
            has one type: call ``torch.ops.tilewright.flash_attention`` there.

    Returns:
        (B, H, Sq, Dv), of query's dtype; with ``return_lse`` a pair of it and the natural logarithm
        of the denominator, (B, H, Sq), float32 for 16-bit inputs. A query that sees no key has
        output 0, log-sum-exp -inf (its sink, where given) and gradients 0. Differentiable in query,
        key, value, bias, alibi_slopes and sinks, through both results, twice.

    Raises:
        RuntimeError: on shapes, dtypes, devices or options that do not fit.
    """
    out, lse = torch.ops.tilewright.flash_attention(
        query,
        key,
        value,
        bias,
        alibi_slopes,
        sinks,
        causal=causal,
        top_left=top_left,
        window_left=window_left,
        window_right=window_right,
        scale=scale,
        softcap=softcap,
        dropout_p=dropout_p,
        rng_state=rng_state,
    )
    if torch.jit.is_scripting():
        _no_lse_in_scripts(return_lse)
    elif return_lse:
        return out, lse
    return out


def flash_attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    causal: bool = False,
    top_left: bool = False,
    window_left: int = -1,
    window_right: int = -1,
    scale: Optional[float] = None,  # noqa: UP045
    softcap: float = 0.0,
    alibi_slopes: Optional[Tensor] = None,  # noqa: UP045
    dropout_p: float = 0.0,
    rng_state: Optional[Tensor] = None,  # noqa: UP045
    return_lse: bool = False,
) -> Tensor:
    """:func:`flash_attention` for sequences of different lengths, packed one behind the other.

    Args:
        query: (T, H, D).
        key: (Tk, Hk, D).
        value: (Tk, Hk, Dv).
        cu_seqlens_q: (B + 1,) int32, from 0 upwards: sequence b has the rows
            ``cu_seqlens_q[b]`` to ``cu_seqlens_q[b + 1]`` of query. Lengths may be 0.
        cu_seqlens_k: the same for key and value.
        max_seqlen_q, max_seqlen_k: no less than the longest sequence.
        causal, top_left, window_left, window_right, scale, softcap, alibi_slopes, dropout_p,
            rng_state, return_lse: as for :func:`flash_attention`.

    Returns:
        (T, H, Dv); with ``return_lse`` also the log-sum-exp, (H, T). Differentiable in query, key,
        value and alibi_slopes, twice.

    Raises:
        RuntimeError: on shapes, dtypes, devices or options that do not fit; on the CPU also where
            cu_seqlens do not start at 0, decrease, overrun the rows or hold a sequence longer than
            the maximum (on CUDA sequences are cut to what lies within).
    """
    out, lse = torch.ops.tilewright.flash_attention_varlen(
        query,
        key,
        value,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        causal=causal,
        top_left=top_left,
        window_left=window_left,
        window_right=window_right,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        dropout_p=dropout_p,
        rng_state=rng_state,
    )
    if torch.jit.is_scripting():
        _no_lse_in_scripts(return_lse)
    elif return_lse:
        return out, lse
    return out


def flash_attention_paged(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    cache_seqlens: Tensor,
    causal: bool = True,
    window_left: int = -1,
    scale: Optional[float] = None,  # noqa: UP045
    softcap: float = 0.0,
    alibi_slopes: Optional[Tensor] = None,  # noqa: UP045
    return_lse: bool = False,
) -> Tensor:
    """Attention of a few new queries to keys that lie in pages (PagedAttention, arXiv:2309.06180).

    Args:
        query: (B, H, S, D), the last S tokens of each sequence.
        key_cache: (pages, page, Hk, D), any page size.
        value_cache: (pages, page, Hk, Dv).
        block_table: (B, max_pages) int32; key j of sequence b is row ``j % page`` of page
            ``block_table[b, j // page]``.
        cache_seqlens: (B,) int32, the keys of each sequence, those of the queries included: append
            them first (:func:`append_kv_`).
        causal, window_left, scale, softcap, alibi_slopes, return_lse: as for
            :func:`flash_attention`.

    Returns:
        (B, H, S, Dv); with ``return_lse`` also the log-sum-exp, (B, H, S). Not differentiable.

    Raises:
        RuntimeError: on shapes, dtypes, devices or options that do not fit, and on inputs that
            require grad; on the CPU also for lengths and pages out of range.
    """
    out, lse = torch.ops.tilewright.flash_attention_paged(
        query,
        key_cache,
        value_cache,
        block_table,
        cache_seqlens,
        causal=causal,
        window_left=window_left,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
    )
    if torch.jit.is_scripting():
        _no_lse_in_scripts(return_lse)
    elif return_lse:
        return out, lse
    return out


def append_kv_(
    key_cache: Tensor,
    value_cache: Tensor,
    key: Tensor,
    value: Tensor,
    block_table: Tensor,
    cache_seqlens: Tensor,
) -> None:
    """Writes new keys and values into the pages of their sequences, behind what these hold.

    Args:
        key_cache, value_cache, block_table: as for :func:`flash_attention_paged`; the caches are
            written to, so they must not be expanded, and their last stride must be 1.
        key: (B, Hk, S, D), of the caches' dtype.
        value: (B, Hk, S, Dv).
        cache_seqlens: (B,) int32, the keys that each sequence has before; left as it is.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit, on tensors that require grad,
            and on the CPU where block_table has no room or names a page that is none. Nothing is
            written then.
    """
    torch.ops.tilewright.append_kv_(key_cache, value_cache, key, value, block_table, cache_seqlens)


def merge_attention(
    out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor
) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """The attention over two disjoint sets of keys, from the attentions over each.

    Ring attention (arXiv:2310.01889) and keys split over workers are composed of it.

    Args:
        out_a, out_b: (..., S, Dv), floating.
        lse_a, lse_b: (..., S), float32 or float64; -inf where no key was seen.

    Returns:
        Output and log-sum-exp, of the same shapes. A row that saw no key in either part stays 0
        with -inf. Differentiable.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit.
    """
    return torch.ops.tilewright.merge_attention(out_a, lse_a, out_b, lse_b)


def _no_lse_in_scripts(return_lse: bool) -> None:
    if return_lse:
        raise RuntimeError(
            "return_lse=True changes the type of the result, which a scripted function cannot; "
            "call the operator in torch.ops.tilewright, which returns output and log-sum-exp"
        )
