// Attention on CUDA, dense and packed: tensors to kernel parameters and launches.
#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include "tilewright/attention/attention_calls.h"
#include "tilewright/attention/attention_host.h"
#include "tilewright/attention/attention_plan.h"
#include "tilewright/attention/attention_sinks.h"

namespace tilewright {
namespace {

// What differs between (B, H, S, D) and packed sequences.
struct CallShape {
  bool packed = false;
  at::Tensor cu_q, cu_k;  // of packed sequences
  int64_t batch, q_len, k_len;

  HeadLayout layout() const { return packed ? kPackedLayout : kDenseLayout; }
};

CallShape dense_shape(const at::Tensor& query, const at::Tensor& key) {
  return {false, {}, {}, query.size(0), query.size(2), key.size(2)};
}
// Offsets that nobody has checked: one below an earlier one counts as that one, so that no row
// belongs to two sequences.
at::Tensor rising(const at::Tensor& offsets) { return std::get<0>(at::cummax(offsets, 0)); }
CallShape packed_shape(const at::Tensor& query, const at::Tensor& key, const at::Tensor& cu_q,
                       const at::Tensor& cu_k, int64_t max_q, int64_t max_k) {
  return {true,
          rising(cu_q),
          rising(cu_k),
          cu_q.size(0) - 1,
          std::min(max_q, query.size(0)),
          std::min(max_k, key.size(0))};
}

template <class T>
AttentionParams<device_t<T>> shaped_params(const AttentionArgs& args, const CallShape& shape,
                                           const at::Tensor& query, const at::Tensor& key,
                                           const at::Tensor& value, const AttentionExtras& extras) {
  auto p = attention_params<T>(args, query, key, value, extras, shape.layout(), shape.layout());
  p.batch = int(shape.batch), p.q_len = int(shape.q_len), p.k_len = int(shape.k_len);
  if (shape.packed) {
    check_rows(args.op, "query", query);
    check_rows(args.op, "key", key);
    p.cu_q = const_data<int>(shape.cu_q), p.cu_k = const_data<int>(shape.cu_k);
    p.total_q = int(query.size(0)), p.total_k = int(key.size(0));
    p.lse_head = query.size(0);
  } else {
    p.lse_head = query.size(2), p.lse_batch = query.size(1) * query.size(2);
  }
  return p;
}

TensorPair run_forward(const AttentionArgs& args, const CallShape& shape,
                       const at::Tensor& given_query, const at::Tensor& given_key,
                       const at::Tensor& given_value, const AttentionExtras& given_extras) {
  check_counts(args.op, shape.batch * given_query.size(1), shape.q_len, shape.k_len);
  const at::Tensor query = with_unit_stride(given_query), key = with_unit_stride(given_key);
  const at::Tensor value = with_unit_stride(given_value);
  const AttentionExtras extras =
      prepare_extras(given_extras, query, shape.batch, shape.q_len, shape.k_len);
  const auto [out, lse] = attention_outputs(given_query, value, shape.packed);
  if (shape.packed) {  // rows of no sequence
    out.zero_();
    lse.fill_(-std::numeric_limits<double>::infinity());
  }
  if (lse.numel() == 0) return {out, lse};
  dispatch_floating(args.op, query.scalar_type(), [&, &out = out, &lse = lse](auto tag) {
    using T = typename decltype(tag)::type;
    auto p = shaped_params<T>(args, shape, query, key, value, extras);
    p.out = written_rows<T>(out, shape.layout());
    p.lse = mutable_data<accumulate_t<device_t<T>>>(lse);
    p.aligned = rows_in_packs_of(8, {query, key, value});
    p.pairs = rows_in_packs_of(2, {out});
    const SplitRoom room = plan_forward(p, query);
    launch_attention_forward(p, is_plain(p));
  });
  return {out, lse};
}

// The sizes of a bias with as many dimensions as the scores have.
void bias_sizes(const at::Tensor& bias, int (&sizes)[4]) {
  for (int d = 0; d < 4; ++d) {
    const int64_t from = d - 4 + bias.dim();
    sizes[d] = from < 0 ? 1 : int(bias.size(from));
  }
}

// d lse / d sink = exp(sink - lse), of which delta = grad_out . out - grad_lse is what the loss
// makes. 16-bit outputs lose digits of delta: there the sum of the derivatives by a query's scores,
// (grad_out . out) - (1 - share) delta, gives them back.
at::Tensor exact_sinks_gradient(const at::Tensor& sinks, const at::Tensor& lse,
                                const at::Tensor& grad_lse, const at::Tensor& delta,
                                const at::Tensor& score_sums) {
  const at::Tensor shares = sink_shares(sinks, lse);
  at::Tensor exact = delta;
  if (score_sums.defined()) {
    exact = at::addcmul(score_sums, delta, 1 - shares);
    if (grad_lse.defined()) exact.sub_(grad_lse);
  }
  return sinks_gradient(shares, lse, exact);
}

AttentionGrads run_backward(const AttentionArgs& args, const CallShape& shape,
                            const at::Tensor& given_grad_out, const at::Tensor& given_grad_lse,
                            const at::Tensor& given_query, const at::Tensor& given_key,
                            const at::Tensor& given_value, const at::Tensor& given_out,
                            const at::Tensor& given_lse, const AttentionExtras& given_extras,
                            const ExtraNeeds& needs) {
  check_counts(args.op, shape.batch * given_query.size(1), shape.q_len, shape.k_len);
  const at::Tensor query = with_unit_stride(given_query), key = with_unit_stride(given_key);
  const at::Tensor value = with_unit_stride(given_value), out = with_unit_stride(given_out);
  const at::Tensor grad_out = with_unit_stride(given_grad_out), lse = given_lse.contiguous();
  const at::Tensor grad_lse = given_grad_lse.defined() ? given_grad_lse.contiguous() : at::Tensor();
  const AttentionExtras extras =
      prepare_extras(given_extras, query, shape.batch, shape.q_len, shape.k_len);
  AttentionGrads grads = attention_grads(given_query, given_key, given_value, given_extras, needs);
  auto& [grad_query, grad_key, grad_value, grad_bias, grad_slopes, grad_sinks] = grads;
  if (shape.packed || query.size(1) == 0) {  // rows of no sequence, keys of no query
    for (const at::Tensor& grad : {grad_query, grad_key, grad_value}) grad.zero_();
  }
  const at::Tensor lse_log2 = at::empty_like(lse), delta = at::empty_like(lse);
  at::Tensor slope_partials;
  if (needs[1]) {
    slope_partials =
        at::empty({shape.batch, query.size(1), ceil_div(shape.q_len, kTileQueries)}, lse.options());
  }
  at::Tensor score_sums;
  if (needs[2] && query.element_size() == 2) score_sums = at::empty_like(lse);
  dispatch_floating(args.op, query.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = accumulate_t<device_t<T>>;
    auto p = shaped_params<T>(args, shape, query, key, value, extras);
    p.saved_out = read_rows<T>(out, shape.layout());
    p.grad_out = read_rows<T>(grad_out, shape.layout());
    p.grad_query = written_rows<T>(grad_query, shape.layout());
    p.grad_key = written_rows<T>(grad_key, shape.layout());
    p.grad_value = written_rows<T>(grad_value, shape.layout());
    p.saved_lse = const_data<Acc>(lse);
    if (grad_lse.defined()) p.grad_lse = const_data<Acc>(grad_lse);
    p.lse_log2 = mutable_data<Acc>(lse_log2), p.delta = mutable_data<Acc>(delta);
    if (needs[0]) {
      bias_sizes(given_extras.bias, p.bias_sizes);
      p.grad_bias = p.bias_kind == BiasKind::kInput
                        ? static_cast<void*>(mutable_data<T>(grad_bias))
                        : static_cast<void*>(mutable_data<float>(grad_bias));
    }
    if (score_sums.defined()) p.score_sums = mutable_data<Acc>(score_sums);
    if (needs[1]) p.slope_partials = mutable_data<Acc>(slope_partials);
    p.aligned = rows_in_packs_of(8, {query, key, value, grad_out});
    p.pairs = rows_in_packs_of(2, {grad_query, grad_key, grad_value});
    launch_attention_backward(p, is_plain(p));
  });
  if (needs[1]) {
    grad_slopes = slope_partials.sum(-1);
    if (given_extras.alibi_slopes.dim() == 1) grad_slopes = grad_slopes.sum(0);
  }
  if (needs[2]) grad_sinks = exact_sinks_gradient(extras.sinks, lse, grad_lse, delta, score_sums);
  return grads;
}

TensorPair flash_attention_cuda(const at::Tensor& query, const at::Tensor& key,
                                const at::Tensor& value, const OptionalTensor& bias,
                                const OptionalTensor& slopes, const OptionalTensor& sinks,
                                bool causal, bool top_left, int64_t window_left,
                                int64_t window_right, std::optional<double> scale, double softcap,
                                double dropout_p, const OptionalTensor& rng_state) {
  const AttentionArgs args{"flash_attention", causal, top_left, window_left,
                           window_right,      scale,  softcap,  dropout_p};
  AttentionExtras extras{or_undefined(bias), or_undefined(slopes), or_undefined(sinks),
                         or_undefined(rng_state)};
  check_attention(args, query, key, value, extras);
  const DeviceGuard guard(query);
  extras.rng_state = attention_rng_state(query, dropout_p, rng_state);
  return run_forward(args, dense_shape(query, key), query, key, value, extras);
}

AttentionGrads flash_attention_backward_cuda(
    const at::Tensor& grad_out, const OptionalTensor& grad_lse, const at::Tensor& query,
    const at::Tensor& key, const at::Tensor& value, const at::Tensor& out, const at::Tensor& lse,
    const OptionalTensor& bias, const OptionalTensor& slopes, const OptionalTensor& sinks,
    bool causal, bool top_left, int64_t window_left, int64_t window_right,
    std::optional<double> scale, double softcap, double dropout_p, const OptionalTensor& rng_state,
    std::array<bool, 3> needs) {
  const AttentionArgs args{"_flash_attention_backward",
                           causal,
                           top_left,
                           window_left,
                           window_right,
                           scale,
                           softcap,
                           dropout_p};
  const AttentionExtras extras{or_undefined(bias), or_undefined(slopes), or_undefined(sinks),
                               or_undefined(rng_state)};
  check_attention_backward(args, grad_out, or_undefined(grad_lse), query, key, value, out, lse,
                           extras, needs);
  const DeviceGuard guard(query);
  return run_backward(args, dense_shape(query, key), grad_out, or_undefined(grad_lse), query, key,
                      value, out, lse, extras, needs);
}

TensorPair flash_attention_varlen_cuda(const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const at::Tensor& cu_seqlens_q,
                                       const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
                                       int64_t max_seqlen_k, bool causal, bool top_left,
                                       int64_t window_left, int64_t window_right,
                                       std::optional<double> scale, double softcap,
                                       const OptionalTensor& slopes, double dropout_p,
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
  const DeviceGuard guard(query);
  extras.rng_state = attention_rng_state(query, dropout_p, rng_state);
  const CallShape shape =
      packed_shape(query, key, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k);
  return run_forward(args, shape, query, key, value, extras);
}

VarlenGrads flash_attention_varlen_backward_cuda(
    const at::Tensor& grad_out, const OptionalTensor& grad_lse, const at::Tensor& query,
    const at::Tensor& key, const at::Tensor& value, const at::Tensor& out, const at::Tensor& lse,
    const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
    int64_t max_seqlen_k, bool causal, bool top_left, int64_t window_left, int64_t window_right,
    std::optional<double> scale, double softcap, const OptionalTensor& slopes, double dropout_p,
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
  check_attention_varlen(args, query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                         max_seqlen_k, extras);
  check_attention_varlen_backward(args, grad_out, or_undefined(grad_lse), query, key, value, out,
                                  lse, extras, need_slopes);
  const DeviceGuard guard(query);
  const CallShape shape =
      packed_shape(query, key, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k);
  const auto grads = run_backward(args, shape, grad_out, or_undefined(grad_lse), query, key, value,
                                  out, lse, extras, {false, need_slopes, false});
  return {std::get<0>(grads), std::get<1>(grads), std::get<2>(grads), std::get<4>(grads)};
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("flash_attention", &flash_attention_cuda);
  m.impl("_flash_attention_backward", &flash_attention_backward_cuda);
  m.impl("flash_attention_varlen", &flash_attention_varlen_cuda);
  m.impl("_flash_attention_varlen_backward", &flash_attention_varlen_backward_cuda);
}

}  // namespace tilewright
