// Tensors to parameters of the CPU kernels, for dense, packed and paged attention.
#include "tilewright/attention/attention_cpu_call.h"

#include <ATen/Functions.h>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

const char* at_element(const at::Tensor& tensor, int64_t offset) {
  return static_cast<const char*>(tensor.const_data_ptr()) + offset * tensor.element_size();
}
char* at_mutable_element(const at::Tensor& tensor, int64_t offset) {
  return static_cast<char*>(tensor.mutable_data_ptr()) + offset * tensor.element_size();
}

}  // namespace

AttentionCpuCall::AttentionCpuCall(const AttentionArgs& args, const at::Tensor& query,
                                   int64_t head_dim)
    : args_(args),
      accumulate_options_(query.options().dtype(accumulate_dtype(query.scalar_type()))) {
  params_.dtype = query.scalar_type();
  params_.head_dim = head_dim;
  params_.window = args.window();
  params_.scale = scale_of(args, head_dim);
  params_.softcap = args.softcap;
  params_.dropout_scale = 1;
  params_.splits = 1;
}

RowStrides AttentionCpuCall::strides_of(const at::Tensor& tensor, int64_t row_dim,
                                        int64_t head_dim) {
  return {tensor.stride(row_dim), tensor.stride(head_dim)};
}

void AttentionCpuCall::set_sizes(int64_t batch, int64_t heads, int64_t kv_heads,
                                 const at::Tensor& value) {
  params_.batch = batch;
  params_.heads = heads;
  params_.kv_heads = kv_heads;
  params_.value_dim = value.size(-1);
}

void AttentionCpuCall::set_dense(const at::Tensor& query, const at::Tensor& key,
                                 const at::Tensor& value, const at::Tensor& out,
                                 const at::Tensor& lse) {
  set_sizes(query.size(0), query.size(1), key.size(1), value);
  params_.query = strides_of(keep(query), 2, 1);
  params_.key = strides_of(keep(key), 2, 1);
  params_.value = strides_of(keep(value), 2, 1);
  params_.out = strides_of(keep(out), 2, 1);
  params_.lse_head = keep(lse).stride(1);
  for (int64_t b = 0; b < query.size(0); ++b) {
    AttentionCpuSequence s{};
    s.query = at_element(query, b * query.stride(0));
    s.key = at_element(key, b * key.stride(0));
    s.value = at_element(value, b * value.stride(0));
    s.out = at_mutable_element(out, b * out.stride(0));
    s.lse = at_mutable_element(lse, b * lse.stride(0));
    s.q_len = query.size(2);
    s.k_len = key.size(2);
    s.index = b;
    sequences_.push_back(s);
    first_rows_.push_back(b * s.q_len);
  }
}

void AttentionCpuCall::set_packed(const at::Tensor& query, const at::Tensor& key,
                                  const at::Tensor& value, const at::Tensor& out,
                                  const at::Tensor& lse, const at::Tensor& cu_seqlens_q,
                                  const at::Tensor& cu_seqlens_k) {
  packed_ = true;
  const int64_t batch = cu_seqlens_q.numel() - 1;
  set_sizes(batch, query.size(1), key.size(1), value);
  params_.query = strides_of(keep(query), 0, 1);
  params_.key = strides_of(keep(key), 0, 1);
  params_.value = strides_of(keep(value), 0, 1);
  params_.out = strides_of(keep(out), 0, 1);
  params_.lse_head = keep(lse).stride(0);
  const auto* rows = cu_seqlens_q.const_data_ptr<int64_t>();
  const auto* keys = cu_seqlens_k.const_data_ptr<int64_t>();
  for (int64_t b = 0; b < batch; ++b) {
    AttentionCpuSequence s{};
    s.query = at_element(query, rows[b] * query.stride(0));
    s.key = at_element(key, keys[b] * key.stride(0));
    s.value = at_element(value, keys[b] * value.stride(0));
    s.out = at_mutable_element(out, rows[b] * out.stride(0));
    s.lse = at_mutable_element(lse, rows[b]);
    s.q_len = rows[b + 1] - rows[b];
    s.k_len = keys[b + 1] - keys[b];
    s.index = b;
    sequences_.push_back(s);
    first_rows_.push_back(rows[b]);
  }
}

void AttentionCpuCall::set_paged(const at::Tensor& query, const at::Tensor& key_cache,
                                 const at::Tensor& value_cache, const at::Tensor& out,
                                 const at::Tensor& lse, const at::Tensor& block_table,
                                 const at::Tensor& cache_seqlens) {
  set_dense(query, key_cache.transpose(1, 2), value_cache.transpose(1, 2), out, lse);
  params_.page_size = key_cache.size(1);
  params_.key_page = key_cache.stride(0);
  params_.value_page = value_cache.stride(0);
  const auto* lengths = keep(cache_seqlens).const_data_ptr<int32_t>();
  const auto* pages = keep(block_table).const_data_ptr<int32_t>();
  for (AttentionCpuSequence& s : sequences_) {
    s.key = key_cache.const_data_ptr();
    s.value = value_cache.const_data_ptr();
    s.k_len = lengths[s.index];
    s.pages = pages + s.index * block_table.size(1);
  }
}

void AttentionCpuCall::set_extras(const AttentionExtras& extras) {
  extras_ = extras;
  const auto accumulated = [&](const at::Tensor& tensor) {
    return keep(tensor.to(accumulate_options_.dtype()).contiguous());
  };
  if (extras.alibi_slopes.defined()) {
    const at::Tensor slopes = accumulated(extras.alibi_slopes);
    params_.slopes = slopes.const_data_ptr();
    params_.slopes_batch = slopes.dim() == 2 ? slopes.size(1) : 0;
  }
  if (extras.sinks.defined()) params_.sinks = accumulated(extras.sinks).const_data_ptr();
  if (args_.dropout_p > 0) {
    const at::Tensor state = extras.rng_state.contiguous();
    const auto* words = state.const_data_ptr<int64_t>();
    params_.dropout = {uint64_t(words[0]), uint32_t(words[1]), dropout_threshold(args_.dropout_p)};
    params_.dropout_scale = 1 / (1 - args_.dropout_p);
  }
  if (extras.bias.defined() && !sequences_.empty()) {
    const at::Tensor bias = keep(expand_bias(extras.bias, params_.batch, params_.heads,
                                             sequences_[0].q_len, sequences_[0].k_len));
    params_.bias = bias.const_data_ptr();
    params_.bias_kind = bias.scalar_type() == at::kBool       ? BiasKind::kBool
                        : bias.scalar_type() == params_.dtype ? BiasKind::kInput
                                                              : BiasKind::kFloat;
    for (int i = 0; i < 4; ++i) params_.bias_strides[i] = bias.size(i) == 1 ? 0 : bias.stride(i);
  }
}

void AttentionCpuCall::set_gradients(const at::Tensor& grad_out, const at::Tensor& grad_lse,
                                     const at::Tensor& grad_query, const at::Tensor& grad_key,
                                     const at::Tensor& grad_value) {
  const int64_t row = packed_ ? 0 : 2;
  params_.grad_out = strides_of(keep(grad_out), row, 1);
  grad_query_ = grad_query, grad_key_ = grad_key, grad_value_ = grad_value;
  params_.grad_query = strides_of(grad_query, row, 1);
  params_.grad_key = strides_of(keep(grad_key), row, 1);
  params_.grad_value = strides_of(keep(grad_value), row, 1);
  if (grad_lse.defined()) keep(grad_lse);
  int64_t keys = 0;
  for (AttentionCpuSequence& s : sequences_) {
    // Where its rows begin, in tensors of queries and of keys.
    const int64_t rows = first_rows_[s.index];
    const auto offset = [&](const at::Tensor& tensor, int64_t first_row) {
      return packed_ ? first_row * tensor.stride(0) : s.index * tensor.stride(0);
    };
    s.grad_out = at_element(grad_out, offset(grad_out, rows));
    s.grad_query = at_mutable_element(grad_query, offset(grad_query, rows));
    s.grad_key = at_mutable_element(grad_key, offset(grad_key, keys));
    s.grad_value = at_mutable_element(grad_value, offset(grad_value, keys));
    if (grad_lse.defined()) {
      s.grad_lse = at_element(grad_lse, packed_ ? rows : s.index * grad_lse.stride(0));
    }
    keys += s.k_len;
  }
}

}  // namespace tilewright
