// How large gradients are: a histogram of their exponents, which says what narrower formats keep.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// grads: at least one tensor, any shapes, float64 to float16, on one device. (256,) int64: how many
// elements have each exponent of float32, by its bits: e counts |x| in [2^(e - 127), 2^(e - 126)),
// 0 what is 0 or below 2^-126, 255 inf, NaN and what is 2^128 or beyond. Errors: gradients that are
// sparse, or on other devices.
TILEWRIGHT_API at::Tensor gradient_exponents(at::TensorList grads);

}  // namespace tilewright
