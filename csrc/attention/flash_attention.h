// Attention that never stores the matrix of scores, forward and backward: FlashAttention-2 (Dao,
// arXiv:2307.08691), on CPU and CUDA, with the options its users combine.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// out = softmax(s) value, with s (B, H, Sq, Sk) made of query and key in this order:
//   s = scale * q.k                          scale: 1 / sqrt(D) where not given
//   s = softcap * tanh(s / softcap)          where softcap > 0
//   s -= slope * |i + o - j|                 alibi_slopes; o = Sk - Sq, or 0 with top_left
//   s += bias                                boolean: True keeps, False is -inf
//   s = -inf unless j <= i + o (causal) and i + o - window_left <= j <= i + o + window_right
//                                            (-1: unlimited)
// and then dropout of probabilities with 1 / (1 - dropout_p).
//
// query (B, H, Sq, D), key (B, Hk, Sk, D), value (B, Hk, Sk, Dv): float64, float32, float16 or
//   bfloat16, one dtype; H a multiple of Hk (query head h uses key head h / (H / Hk)); D and Dv
//   from 1 to 256; any strides whose last is 1 (others are copied).
// bias: broadcasts to (B, H, Sq, Sk); bool, query's dtype or float32.
// alibi_slopes: (H,) or (B, H), floating. sinks: (H,), floating; a score that enters only the
//   denominator and lse.
// rng_state: (2,) int64, seed and offset of dropout (the offset's low 32 bits count); drawn from
//   torch's generator where not given.
// Returns out (B, H, Sq, Dv), laid out as query is, and lse (B, H, Sq), the natural logarithm of
// the denominator: float32 for 16-bit inputs, else their dtype. A query that sees no key has out 0,
// lse -inf (its sink, where given) and gradients 0.
//
// Differentiable in query, key, value, bias, alibi_slopes and sinks, through out and lse; twice
// through a composite of ATen operators that stores s. Errors: c10::Error.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> flash_attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const std::optional<at::Tensor>& bias = std::nullopt,
    const std::optional<at::Tensor>& alibi_slopes = std::nullopt,
    const std::optional<at::Tensor>& sinks = std::nullopt, bool causal = false,
    bool top_left = false, int64_t window_left = -1, int64_t window_right = -1,
    std::optional<double> scale = std::nullopt, double softcap = 0.0, double dropout_p = 0.0,
    const std::optional<at::Tensor>& rng_state = std::nullopt);

// The same for sequences of different lengths, packed: query (T, H, D), key (Tk, Hk, D), value (Tk,
// Hk, Dv); sequence b has the rows [cu_seqlens_q[b], cu_seqlens_q[b + 1]) of query and those of
// cu_seqlens_k in key and value. cu_seqlens_*: (B + 1,) int32, from 0 upwards; lengths may be 0.
// max_seqlen_*: no less than the longest. Returns out (T, H, Dv) and lse (H, T).
// On CUDA, where looking at cu_seqlens would cost a synchronisation, sequences are cut to what lies
// within the tensors and max_seqlen.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> flash_attention_varlen(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
    int64_t max_seqlen_k, bool causal = false, bool top_left = false, int64_t window_left = -1,
    int64_t window_right = -1, std::optional<double> scale = std::nullopt, double softcap = 0.0,
    const std::optional<at::Tensor>& alibi_slopes = std::nullopt, double dropout_p = 0.0,
    const std::optional<at::Tensor>& rng_state = std::nullopt);

// Attention of a few new queries to keys and values that lie in pages, for decoding. query (B, H,
// S, D); key_cache (pages, page, Hk, D), value_cache (pages, page, Hk, Dv), any page size; key j of
// sequence b is row j % page of page block_table[b][j / page]. block_table: (B, max_pages) int32.
// cache_seqlens: (B,) int32, the keys of each sequence, those of the queries included. Forward
// only: inputs that require grad are refused. Returns out (B, H, S, Dv), lse (B, H, S).
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> flash_attention_paged(
    const at::Tensor& query, const at::Tensor& key_cache, const at::Tensor& value_cache,
    const at::Tensor& block_table, const at::Tensor& cache_seqlens, bool causal = true,
    int64_t window_left = -1, std::optional<double> scale = std::nullopt, double softcap = 0.0,
    const std::optional<at::Tensor>& alibi_slopes = std::nullopt);

// Writes key (B, Hk, S, D) and value (B, Hk, S, Dv) behind the cache_seqlens[b] keys that sequence
// b has; cache_seqlens stays as it is. The caches' last stride is 1. Everything is checked before
// anything is written.
TILEWRIGHT_API void append_kv_(const at::Tensor& key_cache, const at::Tensor& value_cache,
                               const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& block_table, const at::Tensor& cache_seqlens);

// The attention over the union of two disjoint sets of keys, from the attentions over each: out
// (..., S, Dv), lse (..., S). Differentiable; composed of ATen operators. A row that saw no key in
// either part stays 0 with lse -inf.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> merge_attention(const at::Tensor& out_a,
                                                                  const at::Tensor& lse_a,
                                                                  const at::Tensor& out_b,
                                                                  const at::Tensor& lse_b);

}  // namespace tilewright
