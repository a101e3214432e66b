// log p of binary vectors under independent pixels, for C++ users.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// logits: (..., D), float64, float32, float16 or bfloat16. x: (..., D), zeros and ones of any
// dtype; on the CPU other values are an error, unless the program is being traced.
// Returns sum over d of log p(x_d), p(x_d = 1) = sigmoid(logits_d): (...), in nats, float64 of
// float64 and else float32. Composed of ATen's operators, so differentiable as they are.
TILEWRIGHT_API at::Tensor binary_log_prob(const at::Tensor& logits, const at::Tensor& x);

}  // namespace tilewright
