// The loss terms, in ATen calls that the Python twin makes too.
#include "tilewright/models/detection_losses.h"

#include <torch/nn/functional/loss.h>

#include <algorithm>

#include "tilewright/detection/boxes_internal.h"

namespace tilewright {
namespace {

torch::Tensor divided(const torch::Tensor& sum, int64_t count) {
  return sum / std::max<int64_t>(count, 1);
}

}  // namespace

torch::Tensor sampling_noise(const torch::Tensor& labels) {
  return torch::rand(labels.sizes(), labels.options().dtype(torch::kFloat));
}

torch::Tensor objectness_loss(const torch::Tensor& logits, const torch::Tensor& labels) {
  const auto wide = boxes_internal::at_least_float(logits);
  const auto sum = torch::binary_cross_entropy_with_logits(wide, labels.to(wide.dtype()), {}, {},
                                                           at::Reduction::Sum);
  return divided(sum, labels.size(0));
}

torch::Tensor classification_loss(const torch::Tensor& logits, const torch::Tensor& labels) {
  return divided(torch::cross_entropy_loss(boxes_internal::at_least_float(logits), labels, {},
                                           at::Reduction::Sum),
                 labels.size(0));
}

torch::Tensor box_regression_loss(const torch::Tensor& deltas, const torch::Tensor& targets,
                                  int64_t sampled_count) {
  constexpr double kBeta = 1.0 / 9;
  return divided(torch::smooth_l1_loss(boxes_internal::at_least_float(deltas), targets,
                                       at::Reduction::Sum, kBeta),
                 sampled_count);
}

}  // namespace tilewright
