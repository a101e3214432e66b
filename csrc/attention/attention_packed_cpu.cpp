// flash_attention_varlen, its backward and flash_attention_paged on the CPU.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <limits>

#include "tilewright/attention/attention_calls.h"
#include "tilewright/attention/attention_cpu_call.h"

namespace tilewright {
namespace {

at::Tensor as_offsets(const at::Tensor& cu_seqlens) {
  return cu_seqlens.to(at::kLong).contiguous();
}

// Rows behind the last sequence belong to none.
at::Tensor rows_behind(const at::Tensor& tensor, int64_t dim, const at::Tensor& offsets) {
  const int64_t end = offsets[-1].item<int64_t>();
  return tensor.narrow(dim, end, tensor.size(dim) - end);
}

TensorPair varlen(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                  const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                  int64_t max_seqlen_q, int64_t max_seqlen_k, bool causal, bool top_left,
                  int64_t window_left, int64_t window_right, std::optional<double> scale,
                  double softcap, const OptionalTensor& slopes, double dropout_p,
                  const OptionalTensor& rng_state) {
  const AttentionArgs args{"flash_attention_varlen",
                           causal,
                           top_left,
                           window_left,
                           window_right,
                           scale,
                           softcap,
                           dropout_p};
  AttentionExtras extras{{}, or_undefined(slopes), {}, or_undefined(rng_state)};
  check_attention_varlen(args, query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                         max_seqlen_k, extras);
  check_cu_seqlens_data(args.op, "cu_seqlens_q", cu_seqlens_q, query.size(0), max_seqlen_q);
  check_cu_seqlens_data(args.op, "cu_seqlens_k", cu_seqlens_k, key.size(0), max_seqlen_k);
  extras.rng_state = attention_rng_state(query, dropout_p, rng_state);
  auto [out, lse] = attention_outputs(query, value, /*packed=*/true);
  const at::Tensor rows = as_offsets(cu_seqlens_q), keys = as_offsets(cu_seqlens_k);
  rows_behind(out, 0, rows).zero_();
  rows_behind(lse, 1, rows).fill_(-std::numeric_limits<double>::infinity());
  AttentionCpuCall call(args, query, query.size(2));
  call.set_packed(with_unit_stride(query), with_unit_stride(key), with_unit_stride(value), out, lse,
                  rows, keys);
  call.set_extras(extras);
  call.run_forward();
  return {out, lse};
}

VarlenGrads varlen_backward(const at::Tensor& grad_out, const OptionalTensor& grad_lse,
                            const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& out, const at::Tensor& lse,
                            const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                            int64_t max_seqlen_q, int64_t max_seqlen_k, bool causal, bool top_left,
                            int64_t window_left, int64_t window_right, std::optional<double> scale,
                            double softcap, const OptionalTensor& slopes, double dropout_p,
                            const OptionalTensor& rng_state, bool need_slopes) {
  const AttentionArgs args{"_flash_attention_varlen_backward",
                           causal,
                           top_left,
                           window_left,
                           window_right,
                           scale,
                           softcap,
                           dropout_p};
  const AttentionExtras extras{{}, or_undefined(slopes), {}, or_undefined(rng_state)};
  const at::Tensor given_grad_lse = or_undefined(grad_lse);
  check_attention_varlen(args, query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                         max_seqlen_k, extras);
  check_attention_varlen_backward(args, grad_out, given_grad_lse, query, key, value, out, lse,
                                  extras, need_slopes);
  check_cu_seqlens_data(args.op, "cu_seqlens_q", cu_seqlens_q, query.size(0), max_seqlen_q);
  check_cu_seqlens_data(args.op, "cu_seqlens_k", cu_seqlens_k, key.size(0), max_seqlen_k);
  auto [grad_query, grad_key, grad_value, grad_bias, grad_slopes, grad_sinks] =
      attention_grads(query, key, value, extras, {false, need_slopes, false});
  const at::Tensor rows = as_offsets(cu_seqlens_q), keys = as_offsets(cu_seqlens_k);
  rows_behind(grad_query, 0, rows).zero_();
  rows_behind(grad_key, 0, keys).zero_();
  rows_behind(grad_value, 0, keys).zero_();
  AttentionCpuCall call(args, query, query.size(2));
  call.set_packed(with_unit_stride(query), with_unit_stride(key), with_unit_stride(value),
                  with_unit_stride(out), lse.contiguous(), rows, keys);
  call.set_extras(extras);
  call.set_gradients(with_unit_stride(grad_out),
                     given_grad_lse.defined() ? given_grad_lse.contiguous() : at::Tensor(),
                     grad_query, grad_key, grad_value);
  const auto found = call.run_backward({false, need_slopes, false});
  if (need_slopes) grad_slopes.copy_(found[1]);
  return {grad_query, grad_key, grad_value, grad_slopes};
}

TensorPair paged(const at::Tensor& query, const at::Tensor& key_cache,
                 const at::Tensor& value_cache, const at::Tensor& block_table,
                 const at::Tensor& cache_seqlens, bool causal, int64_t window_left,
                 std::optional<double> scale, double softcap, const OptionalTensor& slopes) {
  AttentionArgs args{"flash_attention_paged"};
  args.causal = causal;
  args.window_left = window_left;
  args.scale = scale;
  args.softcap = softcap;
  const AttentionExtras extras{{}, or_undefined(slopes), {}, {}};
  check_attention_paged(args, query, key_cache, value_cache, block_table, cache_seqlens, extras);
  check_block_table_data(args.op, block_table, cache_seqlens, key_cache.size(0), key_cache.size(1),
                         0);
  auto [out, lse] = attention_outputs(query, value_cache, /*packed=*/false);
  AttentionCpuCall call(args, query, query.size(3));
  call.set_paged(with_unit_stride(query), with_unit_stride(key_cache),
                 with_unit_stride(value_cache), out, lse, block_table.contiguous(),
                 cache_seqlens.contiguous());
  call.set_extras(extras);
  call.run_forward();
  return {out, lse};
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("flash_attention_varlen", &varlen);
  m.impl("_flash_attention_varlen_backward", &varlen_backward);
  m.impl("flash_attention_paged", &paged);
}

}  // namespace tilewright
