// flash_attention and its backward on the CPU.
#include <ATen/Functions.h>
#include <torch/library.h>

#include "tilewright/attention/attention_calls.h"
#include "tilewright/attention/attention_cpu_call.h"
#include "tilewright/attention/attention_sinks.h"

namespace tilewright {
namespace {

TensorPair forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                   const OptionalTensor& bias, const OptionalTensor& slopes,
                   const OptionalTensor& sinks, bool causal, bool top_left, int64_t window_left,
                   int64_t window_right, std::optional<double> scale, double softcap,
                   double dropout_p, const OptionalTensor& rng_state) {
  const AttentionArgs args{"flash_attention", causal, top_left, window_left,
                           window_right,      scale,  softcap,  dropout_p};
  AttentionExtras extras{or_undefined(bias), or_undefined(slopes), or_undefined(sinks),
                         or_undefined(rng_state)};
  check_attention(args, query, key, value, extras);
  extras.rng_state = attention_rng_state(query, dropout_p, rng_state);
  auto [out, lse] = attention_outputs(query, value, /*packed=*/false);
  AttentionCpuCall call(args, query, query.size(3));
  call.set_dense(with_unit_stride(query), with_unit_stride(key), with_unit_stride(value), out, lse);
  call.set_extras(extras);
  call.run_forward();
  return {out, lse};
}

bool is_expanded(const at::Tensor& tensor) {
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1 && tensor.stride(d) == 0) return true;
  }
  return false;
}

AttentionGrads backward(const at::Tensor& grad_out, const OptionalTensor& grad_lse,
                        const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                        const at::Tensor& out, const at::Tensor& lse, const OptionalTensor& bias,
                        const OptionalTensor& slopes, const OptionalTensor& sinks, bool causal,
                        bool top_left, int64_t window_left, int64_t window_right,
                        std::optional<double> scale, double softcap, double dropout_p,
                        const OptionalTensor& rng_state, std::array<bool, 3> needs) {
  const AttentionArgs args{"_flash_attention_backward",
                           causal,
                           top_left,
                           window_left,
                           window_right,
                           scale,
                           softcap,
                           dropout_p};
  AttentionExtras extras{or_undefined(bias), or_undefined(slopes), or_undefined(sinks),
                         or_undefined(rng_state)};
  const at::Tensor given_grad_lse = or_undefined(grad_lse);
  check_attention_backward(args, grad_out, given_grad_lse, query, key, value, out, lse, extras,
                           needs);
  // What an expanded bias repeats has gradients of its own: each needs a place.
  if (needs[0] && is_expanded(extras.bias)) extras.bias = extras.bias.contiguous();
  // The gradient of bias is taken as it comes: it may be large.
  AttentionGrads grads = attention_grads(query, key, value, extras, {false, needs[1], needs[2]});
  auto& [grad_query, grad_key, grad_value, grad_bias, grad_slopes, grad_sinks] = grads;
  AttentionCpuCall call(args, query, query.size(3));
  const at::Tensor plain_lse = lse.contiguous();
  call.set_dense(with_unit_stride(query), with_unit_stride(key), with_unit_stride(value),
                 with_unit_stride(out), plain_lse);
  call.set_extras(extras);
  call.set_gradients(with_unit_stride(grad_out),
                     given_grad_lse.defined() ? given_grad_lse.contiguous() : at::Tensor(),
                     grad_query, grad_key, grad_value);
  const auto found = call.run_backward(needs);
  if (needs[0]) grad_bias = found[0].to(bias->scalar_type());
  if (needs[1]) grad_slopes.copy_(found[1]);
  if (needs[2]) {
    const auto dtype = lse.scalar_type();
    at::Tensor delta = (grad_out.to(dtype) * out.to(dtype)).sum(-1);  // (B, H, Sq)
    if (given_grad_lse.defined()) delta = delta - given_grad_lse;
    grad_sinks.copy_(sinks_gradient(sink_shares(sinks->to(dtype), lse), lse, delta));
  }
  return grads;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("flash_attention", &forward);
  m.impl("_flash_attention_backward", &backward);
}

}  // namespace tilewright
