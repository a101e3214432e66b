// The gradient of attention's sinks, from rows alone: on every machine.
#pragma once
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

namespace tilewright {

// (H,) in lse's dtype: -exp(sink - lse) (D - dLSE), summed over batch and queries, for tensors
// (B, H, Sq, ..). grad_lse may be undefined.
inline at::Tensor sinks_gradient(const at::Tensor& grad_out, const at::Tensor& grad_lse,
                                 const at::Tensor& out, const at::Tensor& lse,
                                 const at::Tensor& sinks) {
  const auto dtype = lse.scalar_type();
  at::Tensor delta = (grad_out.to(dtype) * out.to(dtype)).sum(-1);  // (B, H, Sq)
  if (grad_lse.defined()) delta = delta - grad_lse;
  const at::Tensor share = (sinks.to(dtype).view({1, -1, 1}) - lse).exp();
  // A sink of -inf beside no keys: -inf - -inf.
  return -at::where(lse.isneginf(), at::zeros({}, lse.options()), share * delta)
              .sum(at::IntArrayRef({0, 2}));
}

}  // namespace tilewright
