// Attention composed of ATen operators, with the matrix of scores: the second derivatives of
// flash_attention are autograd's of this.
#pragma once
#include "tilewright/attention/attention_calls.h"

namespace tilewright {

// out and lse by the definition in flash_attention.h; differentiable any number of times. Checks
// nothing. `first_batch`: the place of query's first element in the batch, for dropout.
TensorPair attention_composite(const AttentionArgs& args, const at::Tensor& query,
                               const at::Tensor& key, const at::Tensor& value,
                               const AttentionExtras& extras, int64_t first_batch = 0);

// The gradients, as functions of all inputs that autograd can differentiate. grad_out or grad_lse
// may be undefined.
AttentionGrads attention_composite_backward(const AttentionArgs& args, const at::Tensor& grad_out,
                                            const at::Tensor& grad_lse, const at::Tensor& query,
                                            const at::Tensor& key, const at::Tensor& value,
                                            const AttentionExtras& extras, const ExtraNeeds& needs);

// The same of packed sequences. Reads cu_seqlens on the host; sequences are cut to what lies within
// the tensors and the greatest lengths.
VarlenGrads attention_varlen_composite_backward(
    const AttentionArgs& args, const at::Tensor& grad_out, const at::Tensor& grad_lse,
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
    int64_t max_seqlen_k, const AttentionExtras& extras, bool need_slopes);

}  // namespace tilewright
