// The options that every operator of the room takes, the checks of its arguments, and the tensors
// it returns: what does not depend on the device.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "tilewright/attention/attention_math.h"
#include "tilewright/core/export.h"

namespace tilewright {

struct AttentionArgs {
  const char* op;
  bool causal = false, top_left = false;
  int64_t window_left = -1, window_right = -1;
  std::optional<double> scale;
  double softcap = 0, dropout_p = 0;

  // Windows beyond all lengths are cut to where sums with a place still fit into 64 bits.
  AttentionWindow window() const {
    constexpr int64_t kMost = int64_t(1) << 60;
    return {causal, top_left, std::min(window_left, kMost), std::min(window_right, kMost)};
  }
};

// Tensors beside query, key and value; undefined where not given.
struct AttentionExtras {
  at::Tensor bias, alibi_slopes, sinks, rng_state;
};

using TensorPair = std::tuple<at::Tensor, at::Tensor>;
// Of query, key, value, bias, alibi_slopes, sinks; (0,) where not asked for.
using AttentionGrads =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
// Which gradients of bias, alibi_slopes and sinks are asked for.
using ExtraNeeds = std::array<bool, 3>;

inline double scale_of(const AttentionArgs& args, int64_t head_dim) {
  return args.scale ? *args.scale : 1 / std::sqrt(double(head_dim));
}

// float64 for float64, else float32: of lse, and of all sums.
TILEWRIGHT_API at::ScalarType accumulate_dtype(at::ScalarType dtype);

TILEWRIGHT_API void check_attention(const AttentionArgs& args, const at::Tensor& query,
                                    const at::Tensor& key, const at::Tensor& value,
                                    const AttentionExtras& extras);
TILEWRIGHT_API void check_attention_backward(const AttentionArgs& args, const at::Tensor& grad_out,
                                             const at::Tensor& grad_lse, const at::Tensor& query,
                                             const at::Tensor& key, const at::Tensor& value,
                                             const at::Tensor& out, const at::Tensor& lse,
                                             const AttentionExtras& extras,
                                             const ExtraNeeds& needs);
TILEWRIGHT_API void check_attention_varlen(const AttentionArgs& args, const at::Tensor& query,
                                           const at::Tensor& key, const at::Tensor& value,
                                           const at::Tensor& cu_seqlens_q,
                                           const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
                                           int64_t max_seqlen_k, const AttentionExtras& extras);
TILEWRIGHT_API void check_attention_varlen_backward(
    const AttentionArgs& args, const at::Tensor& grad_out, const at::Tensor& grad_lse,
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& out,
    const at::Tensor& lse, const AttentionExtras& extras, bool need_slopes);
TILEWRIGHT_API void check_attention_paged(const AttentionArgs& args, const at::Tensor& query,
                                          const at::Tensor& key_cache,
                                          const at::Tensor& value_cache,
                                          const at::Tensor& block_table,
                                          const at::Tensor& cache_seqlens,
                                          const AttentionExtras& extras);
TILEWRIGHT_API void check_append(const at::Tensor& key_cache, const at::Tensor& value_cache,
                                 const at::Tensor& key, const at::Tensor& value,
                                 const at::Tensor& block_table, const at::Tensor& cache_seqlens);

// What only data can tell, on the CPU. Offsets that do not start at 0, decrease, overrun `total` or
// leave a sequence longer than max_seqlen.
TILEWRIGHT_API void check_cu_seqlens_data(const char* op, const char* name,
                                          const at::Tensor& cu_seqlens, int64_t total,
                                          int64_t max_seqlen);
// Lengths for which block_table has no room, and pages that are none. Of the keys that each
// sequence has, or where `appended` > 0 of as many behind them.
TILEWRIGHT_API void check_block_table_data(const char* op, const at::Tensor& block_table,
                                           const at::Tensor& cache_seqlens, int64_t pages,
                                           int64_t page_size, int64_t appended);

// out and lse, not initialised. `packed`: (T, H, D) and (H, T).
TILEWRIGHT_API TensorPair attention_outputs(const at::Tensor& query, const at::Tensor& value,
                                            bool packed);
// A tensor of `like`'s sizes whose memory has `like`'s order of dimensions, without gaps.
TILEWRIGHT_API at::Tensor empty_laid_out(const at::Tensor& like);
// Gradients of query, key and value as above; of bias (its own shape and dtype), alibi_slopes and
// sinks in the accumulation type, where asked for. Not initialised.
TILEWRIGHT_API AttentionGrads attention_grads(const at::Tensor& query, const at::Tensor& key,
                                              const at::Tensor& value,
                                              const AttentionExtras& extras,
                                              const ExtraNeeds& needs);

// rng_state, or a fresh one on query's device where dropout needs it; undefined without dropout.
TILEWRIGHT_API at::Tensor attention_rng_state(const at::Tensor& query, double dropout_p,
                                              const std::optional<at::Tensor>& rng_state);

// The tensor itself where its last stride is 1 (or its last size), else a copy.
TILEWRIGHT_API at::Tensor with_unit_stride(const at::Tensor& tensor);

// Bias as the kernels take it: (B, H, Sq, Sk) with stride 0 where it broadcasts, the last stride 0
// or 1.
TILEWRIGHT_API at::Tensor expand_bias(const at::Tensor& bias, int64_t batch, int64_t heads,
                                      int64_t q_len, int64_t k_len);

inline at::Tensor or_undefined(const std::optional<at::Tensor>& tensor) {
  return tensor.value_or(at::Tensor());
}

}  // namespace tilewright
