// Losses over large vocabularies that look at samples of it: noise contrastive estimation, sampled
// softmax, and alias tables, which draw in constant time.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// Walker's table of weights (V,), float64 or float32, not negative, with a finite sum above 0
// (Vose 1991): threshold (V,) float64 and alias (V,) int64. Made on the CPU in O(V).
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> alias_table(const at::Tensor& weights);
// `count` indices, drawn with replacement in proportion to the weights: (count,) int64.
TILEWRIGHT_API at::Tensor alias_sample(const at::Tensor& threshold, const at::Tensor& alias,
                                       int64_t count,
                                       const std::optional<at::Generator>& generator = {});

// A language model's loss as a classification of words against noise (Gutmann and Hyvaerinen 2012,
// Mnih and Teh 2012). With s(w) = input . weight[w] + bias[w] - log_partition - log(K q(w)):
//
//   mean over rows of softplus(-s(target)) + sum over noise w of softplus(s(w))
//
// input: (N, D), float64, float32, float16 or bfloat16. weight: (V, D), bias: (V,), of input's
// dtype. target: (N,) int64. noise: (K,) int64, drawn from q, the same for all rows. log_noise:
// (V,) log q, at most 0, float32 or float64. sparse: weight's gradient is a sparse tensor.
TILEWRIGHT_API at::Tensor nce_loss(const at::Tensor& input, const at::Tensor& weight,
                                   const at::Tensor& target, const at::Tensor& noise,
                                   const at::Tensor& log_noise,
                                   const std::optional<at::Tensor>& bias = {},
                                   double log_partition = 0, bool sparse = false);

// Cross-entropy whose sum over other words is estimated from samples of them (Bengio and Senecal
// 2008, arXiv:1412.2007): with s(w) = input . weight[w] + bias[w],
//
//   mean over rows of log(exp(s(target)) + sum over noise w != target of exp(s(w)) / (K q(w)))
//     - s(target)
//
// Arguments as of nce_loss. Nothing of N x K is stored.
TILEWRIGHT_API at::Tensor sampled_softmax_loss(const at::Tensor& input, const at::Tensor& weight,
                                               const at::Tensor& target, const at::Tensor& noise,
                                               const at::Tensor& log_noise,
                                               const std::optional<at::Tensor>& bias = {},
                                               bool sparse = false);

}  // namespace tilewright
