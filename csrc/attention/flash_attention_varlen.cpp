// flash_attention_varlen's schema, autograd, autocast and Meta.
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "tilewright/attention/attention_autograd.h"
#include "tilewright/attention/attention_checks.h"
#include "tilewright/attention/attention_composite.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class VarlenFunction : public torch::autograd::Function<VarlenFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, const OptionalTensor& slopes,
                               const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                               const OptionalTensor& rng_state, int64_t max_seqlen_q,
                               int64_t max_seqlen_k, const AttentionArgs& args) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [out, lse] = flash_attention_varlen(
        query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, args.causal,
        args.top_left, args.window_left, args.window_right, args.scale, args.softcap, slopes,
        args.dropout_p, rng_state);
    save_args(ctx, args);
    ctx->saved_data["max_seqlen_q"] = max_seqlen_q;
    ctx->saved_data["max_seqlen_k"] = max_seqlen_k;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({query, key, value, or_undefined(slopes), cu_seqlens_q, cu_seqlens_k,
                            or_undefined(rng_state), out, lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    if (!grads[0].defined() && !grads[1].defined()) return variable_list(10);
    const auto saved = ctx->get_saved_variables();
    const AttentionArgs args = saved_args("flash_attention_varlen", ctx);
    const int64_t max_q = ctx->saved_data.at("max_seqlen_q").toInt();
    const int64_t max_k = ctx->saved_data.at("max_seqlen_k").toInt();
    const at::Tensor &query = saved[0], &key = saved[1], &value = saved[2], &slopes = saved[3];
    const at::Tensor &rng_state = saved[6], &out = saved[7];
    const bool need_slopes = slopes.defined() && ctx->needs_input_grad(3);
    VarlenGrads found;
    if (at::GradMode::is_enabled()) {  // create_graph: the gradients are differentiated again
      found = attention_varlen_composite_backward(args, grads[0], grads[1], query, key, value,
                                                  saved[4], saved[5], max_q, max_k,
                                                  {{}, slopes, {}, rng_state}, need_slopes);
    } else {
      const at::Tensor grad_out = grads[0].defined() ? grads[0] : at::zeros_like(out);
      found = flash_attention_varlen_backward(
          grad_out, optional_of(grads[1]), query, key, value, out, saved[8], saved[4], saved[5],
          max_q, max_k, args.causal, args.top_left, args.window_left, args.window_right, args.scale,
          args.softcap, optional_of(slopes), args.dropout_p, optional_of(rng_state), need_slopes);
    }
    const auto& [grad_query, grad_key, grad_value, grad_slopes] = found;
    const at::Tensor of_slopes =
        need_slopes && grad_slopes.defined() ? grad_slopes.to(slopes.scalar_type()) : at::Tensor();
    return {grad_query, grad_key, grad_value, of_slopes, {}, {}, {}, {}, {}, {}};
  }
};

TensorPair varlen_autograd(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
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
  check_given(args.op, "query", query);
  check_given(args.op, "key", key);
  check_given(args.op, "value", value);
  check_given(args.op, "cu_seqlens_q", cu_seqlens_q);
  check_given(args.op, "cu_seqlens_k", cu_seqlens_k);
  check_rng_state(args.op, query, or_undefined(rng_state));
  const auto out =
      VarlenFunction::apply(query, key, value, slopes, cu_seqlens_q, cu_seqlens_k,
                            optional_of(attention_rng_state(query, dropout_p, rng_state)),
                            max_seqlen_q, max_seqlen_k, args);
  return {out[0], out[1]};
}

// The backward's own backward only says where second derivatives come from.
class VarlenBackwardFunction : public torch::autograd::Function<VarlenBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext*, const at::Tensor& grad_out,
                               const OptionalTensor& grad_lse, const at::Tensor& query,
                               const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& out, const at::Tensor& lse,
                               const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                               int64_t max_seqlen_q, int64_t max_seqlen_k,
                               const OptionalTensor& slopes, const OptionalTensor& rng_state,
                               const AttentionArgs& args, bool need_slopes) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_query, grad_key, grad_value, grad_slopes] = flash_attention_varlen_backward(
        grad_out, grad_lse, query, key, value, out, lse, cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
        max_seqlen_k, args.causal, args.top_left, args.window_left, args.window_right, args.scale,
        args.softcap, slopes, args.dropout_p, rng_state, need_slopes);
    return {grad_query, grad_key, grad_value, grad_slopes};
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TILEWRIGHT_CHECK("_flash_attention_varlen_backward", false,
                     "is not differentiable; second derivatives come from flash_attention_varlen "
                     "with create_graph=True");
  }
};

VarlenGrads varlen_backward_autograd(
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
  const auto g = VarlenBackwardFunction::apply(grad_out, grad_lse, query, key, value, out, lse,
                                               cu_seqlens_q, cu_seqlens_k, max_seqlen_q,
                                               max_seqlen_k, slopes, rng_state, args, need_slopes);
  return {g[0], g[1], g[2], g[3]};
}

template <c10::DispatchKey kKey, c10::DeviceType kDevice>
TensorPair varlen_autocast(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                           int64_t max_seqlen_q, int64_t max_seqlen_k, bool causal, bool top_left,
                           int64_t window_left, int64_t window_right, std::optional<double> scale,
                           double softcap, const OptionalTensor& slopes, double dropout_p,
                           const OptionalTensor& rng_state) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  const auto dtype = at::autocast::get_autocast_dtype(kDevice);
  const auto cast = [&](const at::Tensor& tensor) {
    return at::autocast::cached_cast(dtype, tensor, kDevice);
  };
  return flash_attention_varlen(cast(query), cast(key), cast(value), cu_seqlens_q, cu_seqlens_k,
                                max_seqlen_q, max_seqlen_k, causal, top_left, window_left,
                                window_right, scale, softcap, slopes, dropout_p, rng_state);
}

TensorPair varlen_meta(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                       int64_t max_seqlen_q, int64_t max_seqlen_k, bool causal, bool top_left,
                       int64_t window_left, int64_t window_right, std::optional<double> scale,
                       double softcap, const OptionalTensor& slopes, double dropout_p,
                       const OptionalTensor& rng_state) {
  check_attention_varlen({"flash_attention_varlen", causal, top_left, window_left, window_right,
                          scale, softcap, dropout_p},
                         query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                         {{}, or_undefined(slopes), {}, or_undefined(rng_state)});
  return attention_outputs(query, value, /*packed=*/true);
}

VarlenGrads varlen_backward_meta(
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
  const auto grads = attention_grads(query, key, value, extras, {false, need_slopes, false});
  return {std::get<0>(grads), std::get<1>(grads), std::get<2>(grads), std::get<4>(grads)};
}

}  // namespace

TensorPair flash_attention_varlen(const at::Tensor& query, const at::Tensor& key,
                                  const at::Tensor& value, const at::Tensor& cu_seqlens_q,
                                  const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
                                  int64_t max_seqlen_k, bool causal, bool top_left,
                                  int64_t window_left, int64_t window_right,
                                  std::optional<double> scale, double softcap,
                                  const OptionalTensor& alibi_slopes, double dropout_p,
                                  const OptionalTensor& rng_state) {
  static const auto op =
      operator_handle<decltype(flash_attention_varlen)>("tilewright::flash_attention_varlen");
  return op.call(query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal,
                 top_left, window_left, window_right, scale, softcap, alibi_slopes, dropout_p,
                 rng_state);
}

VarlenGrads flash_attention_varlen_backward(
    const at::Tensor& grad_out, const OptionalTensor& grad_lse, const at::Tensor& query,
    const at::Tensor& key, const at::Tensor& value, const at::Tensor& out, const at::Tensor& lse,
    const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
    int64_t max_seqlen_k, bool causal, bool top_left, int64_t window_left, int64_t window_right,
    std::optional<double> scale, double softcap, const OptionalTensor& alibi_slopes,
    double dropout_p, const OptionalTensor& rng_state, bool need_slopes) {
  static const auto op = operator_handle<decltype(flash_attention_varlen_backward)>(
      "tilewright::_flash_attention_varlen_backward");
  return op.call(grad_out, grad_lse, query, key, value, out, lse, cu_seqlens_q, cu_seqlens_k,
                 max_seqlen_q, max_seqlen_k, causal, top_left, window_left, window_right, scale,
                 softcap, alibi_slopes, dropout_p, rng_state, need_slopes);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "flash_attention_varlen(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens_q, "
      "Tensor cu_seqlens_k, int max_seqlen_q, int max_seqlen_k, *, bool causal=False, "
      "bool top_left=False, int window_left=-1, int window_right=-1, float? scale=None, "
      "float softcap=0.0, Tensor? alibi_slopes=None, float dropout_p=0.0, "
      "Tensor? rng_state=None) -> (Tensor out, Tensor lse)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_flash_attention_varlen_backward(Tensor grad_out, Tensor? grad_lse, Tensor query, "
      "Tensor key, Tensor value, Tensor out, Tensor lse, Tensor cu_seqlens_q, "
      "Tensor cu_seqlens_k, int max_seqlen_q, int max_seqlen_k, *, bool causal, bool top_left, "
      "int window_left, int window_right, float? scale, float softcap, Tensor? alibi_slopes, "
      "float dropout_p, Tensor? rng_state, bool need_slopes) -> (Tensor grad_query, "
      "Tensor grad_key, Tensor grad_value, Tensor grad_slopes)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("flash_attention_varlen", &varlen_autograd);
  m.impl("_flash_attention_varlen_backward", &varlen_backward_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("flash_attention_varlen", &varlen_meta);
  m.impl("_flash_attention_varlen_backward", &varlen_backward_meta);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("flash_attention_varlen", &varlen_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("flash_attention_varlen", &varlen_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}

}  // namespace tilewright
