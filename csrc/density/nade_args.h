// What nade, its backward and nade_sample check, allocate and prepare, whatever the device.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

struct NadeWeights {
  const at::Tensor &weight_in, &bias_in;    // (H, D), (H,)
  const at::Tensor &weight_out, &bias_out;  // (D, H), (D,)
};

using NadeOutput = std::tuple<at::Tensor, at::Tensor>;  // log_prob (N,), logits (N, D)
using NadeGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;  // as the weights

TILEWRIGHT_API void check_nade(const char* op, const at::Tensor& x, const NadeWeights& weights);
TILEWRIGHT_API void check_nade_backward(const char* op, const at::Tensor& grad, const at::Tensor& x,
                                        const NadeWeights& weights, const at::Tensor& logits);
TILEWRIGHT_API void check_nade_sample(int64_t n, const NadeWeights& weights,
                                      const std::optional<at::Tensor>& given);
// Data that only the CPU looks at: throws where a value is neither 0 nor 1.
TILEWRIGHT_API void check_binary(const char* op, const char* name, const at::Tensor& pixels);

// The type that sums are kept in.
TILEWRIGHT_API at::ScalarType nade_sums_type(at::ScalarType dtype);
TILEWRIGHT_API NadeOutput nade_output(const at::Tensor& x);
TILEWRIGHT_API NadeGrads nade_grads(const NadeWeights& weights);

// What the backward walks over, of a logit's gradient (x - p) grad and of x: (groups, D, 2, rows),
// rows of zeros where the last group has less, in the type of sums.
TILEWRIGHT_API at::Tensor nade_steps(const at::Tensor& grad, const at::Tensor& x,
                                     const at::Tensor& logits, int64_t rows);

}  // namespace tilewright
