// From tensors to the parameters of attention's kernels; what the operators' *_cuda.cu share.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/attention/attention_args.h"
#include "tilewright/attention/attention_launch.h"
#include "tilewright/core/check.h"
#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Which dimensions of a tensor are the batch (-1: none), the heads and the rows.
struct HeadLayout {
  int batch, head, row;
};
inline constexpr HeadLayout kDenseLayout{0, 1, 2}, kPackedLayout{-1, 1, 0}, kPagedLayout{0, 2, 1};

template <class T, class Pointer>
HeadRows<T> head_rows(Pointer data, const at::Tensor& tensor, HeadLayout layout) {
  return {data, layout.batch < 0 ? 0 : tensor.stride(layout.batch), tensor.stride(layout.head),
          tensor.stride(layout.row)};
}
template <class T>
HeadRows<const device_t<T>> read_rows(const at::Tensor& tensor, HeadLayout layout) {
  return head_rows<const device_t<T>>(const_data<T>(tensor), tensor, layout);
}
template <class T>
HeadRows<device_t<T>> written_rows(const at::Tensor& tensor, HeadLayout layout) {
  return head_rows<device_t<T>>(mutable_data<T>(tensor), tensor, layout);
}

// Whether every row starts at a multiple of `elements` elements and is a whole number of them.
inline bool rows_in_packs_of(int64_t elements, std::initializer_list<at::Tensor> tensors) {
  for (const at::Tensor& tensor : tensors) {
    const int64_t bytes = elements * tensor.element_size();
    if (reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % bytes != 0) return false;
    if (tensor.size(-1) % elements != 0) return false;
    for (int64_t d = 0; d + 1 < tensor.dim(); ++d) {
      if (tensor.size(d) > 1 && tensor.stride(d) % elements != 0) return false;
    }
  }
  return true;
}

// What both directions and all forms of the operator need. The tensors of `extras` are those that
// prepare_extras made.
template <class T>
AttentionParams<device_t<T>> attention_params(const AttentionArgs& args, const at::Tensor& query,
                                              const at::Tensor& key, const at::Tensor& value,
                                              const AttentionExtras& extras,
                                              HeadLayout query_layout, HeadLayout key_layout) {
  using Acc = accumulate_t<device_t<T>>;
  AttentionParams<device_t<T>> p{};
  p.query = read_rows<T>(query, query_layout);
  p.key = read_rows<T>(key, key_layout);
  p.value = read_rows<T>(value, key_layout);
  p.heads = int(query.size(1));
  const int64_t key_heads = std::max<int64_t>(key.size(key_layout.head), 1);
  p.group = int(std::max<int64_t>(query.size(1) / key_heads, 1));  // without heads too
  p.head_dim = int(query.size(-1)), p.value_dim = int(value.size(-1));
  p.window = args.window();
  p.scale = Acc(scale_of(args, query.size(-1)));
  p.softcap = Acc(args.softcap);
  p.tf32 = std::is_same_v<T, float> && tf32_allowed();
  p.capability = compute_capability();
  p.splits = 1;
  p.keep_scale = 1;
  if (args.dropout_p > 0) {
    p.rng_state = const_data<int64_t>(extras.rng_state);
    p.dropout_threshold = dropout_threshold(args.dropout_p);
    p.keep_scale = Acc(1 / (1 - args.dropout_p));
  }
  if (extras.alibi_slopes.defined()) {
    p.slopes = const_data<Acc>(extras.alibi_slopes);
    p.slopes_batch = extras.alibi_slopes.dim() == 2 ? extras.alibi_slopes.size(1) : 0;
  }
  if (extras.sinks.defined()) p.sinks = const_data<Acc>(extras.sinks);
  if (extras.bias.defined()) {
    const at::Tensor& bias = extras.bias;  // (B, H, Sq, Sk)
    if (bias.scalar_type() == at::kBool) {
      p.bias_kind = BiasKind::kBool, p.bias = const_data<bool>(bias);
    } else if (bias.scalar_type() == query.scalar_type()) {
      p.bias_kind = BiasKind::kInput, p.bias = const_data<T>(bias);
    } else {
      p.bias_kind = BiasKind::kFloat, p.bias = const_data<float>(bias);
    }
    p.bias_batch = bias.stride(0), p.bias_head = bias.stride(1);
    p.bias_row = bias.stride(2), p.bias_column = bias.stride(3);
  }
  return p;
}

// The extras as kernels read them: slopes and sinks in the type of sums, the bias expanded.
inline AttentionExtras prepare_extras(const AttentionExtras& extras, const at::Tensor& query,
                                      int64_t batch, int64_t q_len, int64_t k_len) {
  const auto sums = accumulate_dtype(query.scalar_type());
  AttentionExtras found = extras;
  if (extras.alibi_slopes.defined()) {
    found.alibi_slopes = extras.alibi_slopes.to(sums).contiguous();
  }
  if (extras.sinks.defined()) found.sinks = extras.sinks.to(sums).contiguous();
  if (extras.bias.defined()) {
    found.bias = expand_bias(extras.bias, batch, query.size(1), q_len, k_len);
  }
  if (extras.rng_state.defined()) found.rng_state = extras.rng_state.contiguous();
  return found;
}

// Whether the kernels without options serve the call. Sinks are none of their loops.
template <class T>
bool is_plain(const AttentionParams<T>& p) {
  return p.aligned && p.pairs && p.bias_kind == BiasKind::kNone && !p.slopes && !p.score_sums &&
         !p.rng_state && !p.table && p.splits == 1 && !p.packs_group && p.softcap == 0 &&
         p.scale > 0;
}

inline void check_rows(const char* op, const char* name, const at::Tensor& packed) {
  TILEWRIGHT_CHECK(op, packed.size(0) < int64_t(1) << 31, name,
                   " must have fewer than 2^31 rows on CUDA, got shape ", shape_of(packed));
}

// Kernels count queries, keys and blocks in 32 bits.
inline void check_counts(const char* op, int64_t units, int64_t q_len, int64_t k_len) {
  constexpr int64_t kMost = int64_t(1) << 30;
  TILEWRIGHT_CHECK(op, q_len < kMost && k_len < kMost,
                   "needs sequences shorter than 2^30 on CUDA, got ", q_len, " and ", k_len);
  const int64_t tiles = ceil_div(std::max(q_len, k_len), 64);
  // Up to 16 blocks per tile.
  TILEWRIGHT_CHECK(op, units * tiles < kMost / 8,
                   "has too many tiles for one launch: sequences times heads ", units,
                   " times tiles of 64 rows ", tiles);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
