// The neural autoregressive distribution estimator for C++ users: exact log likelihoods of binary
// vectors, forward and backward as one operator each, and samples.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// Larochelle and Murray 2011. Pixel d of a row depends on those before it:
//
//   h_d = sigmoid(bias_in + sum over i < d of x_i weight_in[:, i])
//   log p(x) = sum over d of log p(x_d | x_<d)
//   p(x_d = 1 | x_<d) = sigmoid(bias_out_d + V_d . h_d)
//
// with V = weight_out. O(D H) for each row, forward and backward.
//
// x: (N, D), zeros and ones of the weights' dtype; it is data and has no gradient. On the CPU other
//    values are an error, on CUDA their likelihood is a number without a meaning.
// weight_in: (H, D), bias_in: (H,), weight_out: (D, H), bias_out: (D,), of one dtype: float64,
//    float32, float16 or bfloat16.
// Returns log p(x) in nats, (N,), float64 of float64 and else float32. Differentiable in weights
// and biases, twice (second derivatives are those of a composition that stores all hidden units).
TILEWRIGHT_API at::Tensor nade(const at::Tensor& x, const at::Tensor& weight_in,
                               const at::Tensor& bias_in, const at::Tensor& weight_out,
                               const at::Tensor& bias_out);

// Rows drawn from the same model: (n, D) zeros and ones of the weights' dtype, without a gradient.
// given: (n, d), d <= D, of that dtype: the first d pixels, which stay as they are. Pixel i of row
// k is 1 where at::rand({n, D}, generator)[k, i] < p(x_i = 1 | x_<i).
TILEWRIGHT_API at::Tensor nade_sample(int64_t n, const at::Tensor& weight_in,
                                      const at::Tensor& bias_in, const at::Tensor& weight_out,
                                      const at::Tensor& bias_out,
                                      const std::optional<at::Tensor>& given = {},
                                      std::optional<at::Generator> generator = {});

}  // namespace tilewright
