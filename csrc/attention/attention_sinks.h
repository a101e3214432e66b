// The gradient of attention's sinks, from rows alone: on every machine.
#pragma once
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

namespace tilewright {

// The sinks' shares of each row's sum, exp(sink - lse), (B, H, Sq). `sinks` (H,) in lse's dtype.
inline at::Tensor sink_shares(const at::Tensor& sinks, const at::Tensor& lse) {
  return at::sub(sinks.view({1, -1, 1}), lse).exp_();
}

// (H,): -share delta, summed over batch and queries, with delta = grad_out . out - grad_lse.
inline at::Tensor sinks_gradient(const at::Tensor& shares, const at::Tensor& lse,
                                 const at::Tensor& delta) {
  // A sink of -inf beside no keys has the share exp(-inf + inf).
  return at::where(lse.isneginf(), 0, at::mul(shares, delta)).sum(at::IntArrayRef({0, 2})).neg_();
}

}  // namespace tilewright
