// The loss terms of two-stage detectors, each divided by the sampled count, and 0 where nothing was
// sampled.
#pragma once
#include <torch/types.h>

#include "tilewright/core/export.h"

namespace tilewright {

// Uniform keys for sample_balanced, one per label, float32 on the device of the labels.
TILEWRIGHT_API torch::Tensor sampling_noise(const torch::Tensor& labels);

// Binary cross entropy of logits (N,) against labels (N,) of 0 and 1, mean.
TILEWRIGHT_API torch::Tensor objectness_loss(const torch::Tensor& logits,
                                             const torch::Tensor& labels);

// Cross entropy of logits (N, C) against labels (N,) int64, mean.
TILEWRIGHT_API torch::Tensor classification_loss(const torch::Tensor& logits,
                                                 const torch::Tensor& labels);

// Smooth L1 (beta 1/9) of predicted against target deltas (P, 4), sum over `sampled_count`.
TILEWRIGHT_API torch::Tensor box_regression_loss(const torch::Tensor& deltas,
                                                 const torch::Tensor& targets,
                                                 int64_t sampled_count);

}  // namespace tilewright
