// flash_attention's schema, autograd and autocast.
#include "tilewright/attention/flash_attention.h"

#include <ATen/autocast_mode.h>
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

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, const OptionalTensor& bias,
                               const OptionalTensor& slopes, const OptionalTensor& sinks,
                               const OptionalTensor& rng_state, const AttentionArgs& args) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [out, lse] = flash_attention(query, key, value, bias, slopes, sinks, args.causal,
                                            args.top_left, args.window_left, args.window_right,
                                            args.scale, args.softcap, args.dropout_p, rng_state);
    save_args(ctx, args);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({query, key, value, or_undefined(bias), or_undefined(slopes),
                            or_undefined(sinks), or_undefined(rng_state), out, lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const AttentionArgs args = saved_args("flash_attention", ctx);
    const at::Tensor &query = saved[0], &key = saved[1], &value = saved[2], &out = saved[7];
    const AttentionExtras extras{saved[3], saved[4], saved[5], saved[6]};
    if (!grads[0].defined() && !grads[1].defined()) return variable_list(8);
    size_t edge = 3;  // of the inputs that were given
    const auto asked = [&](const at::Tensor& extra) {
      return extra.defined() && ctx->needs_input_grad(edge++);
    };
    ExtraNeeds needs;
    needs[0] = asked(extras.bias);
    needs[1] = asked(extras.alibi_slopes);
    needs[2] = asked(extras.sinks);
    AttentionGrads found;
    if (at::GradMode::is_enabled()) {  // create_graph: the gradients are differentiated again
      found =
          attention_composite_backward(args, grads[0], grads[1], query, key, value, extras, needs);
    } else {
      const at::Tensor grad_out = grads[0].defined() ? grads[0] : at::zeros_like(out);
      found = flash_attention_backward(
          grad_out, optional_of(grads[1]), query, key, value, out, saved[8],
          optional_of(extras.bias), optional_of(extras.alibi_slopes), optional_of(extras.sinks),
          args.causal, args.top_left, args.window_left, args.window_right, args.scale, args.softcap,
          args.dropout_p, optional_of(extras.rng_state), needs);
    }
    const auto extra_grad = [](bool needed, const at::Tensor& grad, const at::Tensor& input) {
      return needed && grad.defined() ? grad.to(input.scalar_type()) : at::Tensor();
    };
    return {std::get<0>(found),
            std::get<1>(found),
            std::get<2>(found),
            extra_grad(needs[0], std::get<3>(found), extras.bias),
            extra_grad(needs[1], std::get<4>(found), extras.alibi_slopes),
            extra_grad(needs[2], std::get<5>(found), extras.sinks),
            {},
            {}};
  }
};

TensorPair attention_autograd(const at::Tensor& query, const at::Tensor& key,
                              const at::Tensor& value, const OptionalTensor& bias,
                              const OptionalTensor& slopes, const OptionalTensor& sinks,
                              bool causal, bool top_left, int64_t window_left, int64_t window_right,
                              std::optional<double> scale, double softcap, double dropout_p,
                              const OptionalTensor& rng_state) {
  const AttentionArgs args{"flash_attention", causal, top_left, window_left,
                           window_right,      scale,  softcap,  dropout_p};
  check_given(args.op, "query", query);
  check_given(args.op, "key", key);
  check_given(args.op, "value", value);
  check_rng_state(args.op, query, or_undefined(rng_state));
  const auto out =
      AttentionFunction::apply(query, key, value, bias, slopes, sinks,
                               optional_of(attention_rng_state(query, dropout_p, rng_state)), args);
  return {out[0], out[1]};
}

// The backward's own backward only says where second derivatives come from.
class AttentionBackwardFunction : public torch::autograd::Function<AttentionBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext*, const at::Tensor& grad_out,
                               const OptionalTensor& grad_lse, const at::Tensor& query,
                               const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& out, const at::Tensor& lse,
                               const OptionalTensor& bias, const OptionalTensor& slopes,
                               const OptionalTensor& sinks, const OptionalTensor& rng_state,
                               const AttentionArgs& args, ExtraNeeds needs) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [dq, dk, dv, dbias, dslopes, dsinks] = flash_attention_backward(
        grad_out, grad_lse, query, key, value, out, lse, bias, slopes, sinks, args.causal,
        args.top_left, args.window_left, args.window_right, args.scale, args.softcap,
        args.dropout_p, rng_state, needs);
    return {dq, dk, dv, dbias, dslopes, dsinks};
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TILEWRIGHT_CHECK("_flash_attention_backward", false,
                     "is not differentiable; second derivatives come from flash_attention with "
                     "create_graph=True");
  }
};

AttentionGrads attention_backward_autograd(
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
  const auto g = AttentionBackwardFunction::apply(grad_out, grad_lse, query, key, value, out, lse,
                                                  bias, slopes, sinks, rng_state, args, needs);
  return {g[0], g[1], g[2], g[3], g[4], g[5]};
}

// Query, key and value go to autocast's dtype, as in scaled_dot_product_attention; a float32 bias
// keeps its digits.
template <c10::DispatchKey kKey, c10::DeviceType kDevice>
TensorPair attention_autocast(const at::Tensor& query, const at::Tensor& key,
                              const at::Tensor& value, const OptionalTensor& bias,
                              const OptionalTensor& slopes, const OptionalTensor& sinks,
                              bool causal, bool top_left, int64_t window_left, int64_t window_right,
                              std::optional<double> scale, double softcap, double dropout_p,
                              const OptionalTensor& rng_state) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  const auto dtype = at::autocast::get_autocast_dtype(kDevice);
  const auto cast = [&](const at::Tensor& tensor) {
    return at::autocast::cached_cast(dtype, tensor, kDevice);
  };
  const at::Tensor q = cast(query);
  OptionalTensor given = bias;
  if (bias && bias->scalar_type() != at::kBool && bias->scalar_type() != at::kFloat &&
      bias->scalar_type() != q.scalar_type()) {
    given = bias->to(q.scalar_type());
  }
  return flash_attention(q, cast(key), cast(value), given, slopes, sinks, causal, top_left,
                         window_left, window_right, scale, softcap, dropout_p, rng_state);
}

TensorPair attention_meta(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                          const OptionalTensor& bias, const OptionalTensor& slopes,
                          const OptionalTensor& sinks, bool causal, bool top_left,
                          int64_t window_left, int64_t window_right, std::optional<double> scale,
                          double softcap, double dropout_p, const OptionalTensor& rng_state) {
  check_attention(
      {"flash_attention", causal, top_left, window_left, window_right, scale, softcap, dropout_p},
      query, key, value,
      {or_undefined(bias), or_undefined(slopes), or_undefined(sinks), or_undefined(rng_state)});
  return attention_outputs(query, value, /*packed=*/false);
}

AttentionGrads attention_backward_meta(const at::Tensor& grad_out, const OptionalTensor& grad_lse,
                                       const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const at::Tensor& out,
                                       const at::Tensor& lse, const OptionalTensor& bias,
                                       const OptionalTensor& slopes, const OptionalTensor& sinks,
                                       bool causal, bool top_left, int64_t window_left,
                                       int64_t window_right, std::optional<double> scale,
                                       double softcap, double dropout_p,
                                       const OptionalTensor& rng_state, std::array<bool, 3> needs) {
  const AttentionExtras extras{or_undefined(bias), or_undefined(slopes), or_undefined(sinks),
                               or_undefined(rng_state)};
  check_attention_backward({"_flash_attention_backward", causal, top_left, window_left,
                            window_right, scale, softcap, dropout_p},
                           grad_out, or_undefined(grad_lse), query, key, value, out, lse, extras,
                           needs);
  return attention_grads(query, key, value, extras, needs);
}

}  // namespace

TensorPair flash_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const OptionalTensor& bias, const OptionalTensor& alibi_slopes,
                           const OptionalTensor& sinks, bool causal, bool top_left,
                           int64_t window_left, int64_t window_right, std::optional<double> scale,
                           double softcap, double dropout_p, const OptionalTensor& rng_state) {
  static const auto op = operator_handle<decltype(flash_attention)>("tilewright::flash_attention");
  return op.call(query, key, value, bias, alibi_slopes, sinks, causal, top_left, window_left,
                 window_right, scale, softcap, dropout_p, rng_state);
}

AttentionGrads flash_attention_backward(
    const at::Tensor& grad_out, const OptionalTensor& grad_lse, const at::Tensor& query,
    const at::Tensor& key, const at::Tensor& value, const at::Tensor& out, const at::Tensor& lse,
    const OptionalTensor& bias, const OptionalTensor& alibi_slopes, const OptionalTensor& sinks,
    bool causal, bool top_left, int64_t window_left, int64_t window_right,
    std::optional<double> scale, double softcap, double dropout_p, const OptionalTensor& rng_state,
    std::array<bool, 3> needs) {
  static const auto op =
      operator_handle<decltype(flash_attention_backward)>("tilewright::_flash_attention_backward");
  return op.call(grad_out, grad_lse, query, key, value, out, lse, bias, alibi_slopes, sinks, causal,
                 top_left, window_left, window_right, scale, softcap, dropout_p, rng_state, needs);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "flash_attention(Tensor query, Tensor key, Tensor value, Tensor? bias=None, "
      "Tensor? alibi_slopes=None, Tensor? sinks=None, *, bool causal=False, bool top_left=False, "
      "int window_left=-1, int window_right=-1, float? scale=None, float softcap=0.0, "
      "float dropout_p=0.0, Tensor? rng_state=None) -> (Tensor out, Tensor lse)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_flash_attention_backward(Tensor grad_out, Tensor? grad_lse, Tensor query, Tensor key, "
      "Tensor value, Tensor out, Tensor lse, Tensor? bias, Tensor? alibi_slopes, Tensor? sinks, *, "
      "bool causal, bool top_left, int window_left, int window_right, float? scale, "
      "float softcap, float dropout_p, Tensor? rng_state, bool[3] needs) -> (Tensor grad_query, "
      "Tensor grad_key, Tensor grad_value, Tensor grad_bias, Tensor grad_slopes, "
      "Tensor grad_sinks)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("flash_attention", &attention_autograd);
  m.impl("_flash_attention_backward", &attention_backward_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("flash_attention", &attention_meta);
  m.impl("_flash_attention_backward", &attention_backward_meta);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("flash_attention", &attention_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("flash_attention", &attention_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}

}  // namespace tilewright
