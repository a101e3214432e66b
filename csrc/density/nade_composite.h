// nade as a composition of ATen's operators: where its second derivatives come from.
#pragma once
#include <array>

#include "tilewright/density/nade_args.h"

namespace tilewright {

// First derivatives, where they are needed, that autograd can differentiate again. They store
// (N, D, H) hidden units.
NadeGrads nade_composite_backward(const at::Tensor& grad, const at::Tensor& x,
                                  const NadeWeights& weights, const std::array<bool, 4>& needs);

}  // namespace tilewright
