// The operators of the room as C++ functions that enter the dispatcher, and their signatures: what
// fronts, kernels and registrations agree on.
#pragma once
#include <c10/util/ArrayRef.h>

#include "tilewright/attention/attention_args.h"
#include "tilewright/attention/flash_attention.h"

namespace tilewright {

using OptionalTensor = std::optional<at::Tensor>;

// Backward of flash_attention. grad_lse may be missing. `needs`: of bias, alibi_slopes, sinks.
AttentionGrads flash_attention_backward(
    const at::Tensor& grad_out, const OptionalTensor& grad_lse, const at::Tensor& query,
    const at::Tensor& key, const at::Tensor& value, const at::Tensor& out, const at::Tensor& lse,
    const OptionalTensor& bias, const OptionalTensor& alibi_slopes, const OptionalTensor& sinks,
    bool causal, bool top_left, int64_t window_left, int64_t window_right,
    std::optional<double> scale, double softcap, double dropout_p, const OptionalTensor& rng_state,
    std::array<bool, 3> needs);

using VarlenGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// Backward of flash_attention_varlen: query, key, value, alibi_slopes ((0,) unless asked for).
VarlenGrads flash_attention_varlen_backward(
    const at::Tensor& grad_out, const OptionalTensor& grad_lse, const at::Tensor& query,
    const at::Tensor& key, const at::Tensor& value, const at::Tensor& out, const at::Tensor& lse,
    const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
    int64_t max_seqlen_k, bool causal, bool top_left, int64_t window_left, int64_t window_right,
    std::optional<double> scale, double softcap, const OptionalTensor& alibi_slopes,
    double dropout_p, const OptionalTensor& rng_state, bool need_slopes);

}  // namespace tilewright
