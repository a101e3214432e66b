// Draws the boxes on which a detector's losses are computed, without looking at data on the host.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// A random sample of `size` boxes, of which at most size * positive_fraction are positive;
// negatives fill the rest as far as there are any.
//   labels: (M,) int64: >= 1 positive, 0 negative, below 0 never sampled.
//   noise: (M,) floating, uniform keys in [0, 1): in each group the boxes with the smallest keys
//   are
//     taken, the lower index first where keys tie (keys are compared in float32).
//   Returns two masks (M,) bool: sampled positives, sampled negatives.
// Shapes are static, nothing is read back from the device, and equal noise gives equal samples.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> sample_balanced(const at::Tensor& labels,
                                                                  const at::Tensor& noise,
                                                                  int64_t size,
                                                                  double positive_fraction);

}  // namespace tilewright
