#include "tilewright/models/deform_roi_pool_module.h"

#include <torch/nn/init.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/linear.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/optional_tensor.h"
#include "tilewright/deform/deform_roi_pool.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

constexpr const char* kDeformRoIPool = "DeformRoIPool";  // in messages

}  // namespace

torch::nn::Sequential offset_layers(int64_t channels, int64_t bins, int64_t width) {
  const auto relu = [] { return torch::nn::ReLU(torch::nn::ReLUOptions(true)); };
  torch::nn::Linear last(width, 2 * bins);
  torch::nn::init::zeros_(last->weight);
  torch::nn::init::zeros_(last->bias);
  return torch::nn::Sequential(torch::nn::Linear(bins * channels, width), relu(),
                               torch::nn::Linear(width, width), relu(), last);
}

DeformRoIPoolImpl::DeformRoIPoolImpl(const DeformRoIPoolOptions& options) : options_(options) {
  DeformRoIPoolImpl::reset();
}

void DeformRoIPoolImpl::reset() {
  check_pooled_size(kDeformRoIPool, options_.pooled_height(), options_.pooled_width());
  check_spatial_scale(kDeformRoIPool, options_.spatial_scale());
  check_sampling_ratio(kDeformRoIPool, options_.sampling_ratio());
  TILEWRIGHT_CHECK(kDeformRoIPool, std::isfinite(options_.gamma()), "gamma must be finite, got ",
                   options_.gamma());
  TILEWRIGHT_CHECK(kDeformRoIPool, options_.in_channels() >= 0 && options_.fc_channels() > 0,
                   "in_channels must not be negative and fc_channels be positive, got ",
                   options_.in_channels(), " and ", options_.fc_channels());
  if (options_.in_channels() == 0) return;
  const int64_t bins = options_.pooled_height() * options_.pooled_width();
  offset_fc = register_module("offset_fc",
                              offset_layers(options_.in_channels(), bins, options_.fc_channels()));
}

void DeformRoIPoolImpl::pretty_print(std::ostream& stream) const {
  stream << "tilewright::DeformRoIPool(output_size=(" << options_.pooled_height() << ", "
         << options_.pooled_width() << "), spatial_scale=" << options_.spatial_scale()
         << ", sampling_ratio=" << options_.sampling_ratio() << ", gamma=" << options_.gamma()
         << ")";
}

torch::Tensor DeformRoIPoolImpl::forward(const torch::Tensor& input, const torch::Tensor& rois,
                                         const torch::Tensor& offset) {
  const auto pool = [&](const torch::Tensor& moves) {
    return deform_roi_pool(input, rois, optional_of(moves), options_.spatial_scale(),
                           options_.pooled_height(), options_.pooled_width(),
                           options_.sampling_ratio(), options_.gamma());
  };
  if (offset.defined() || offset_fc.is_empty()) return pool(offset);
  TILEWRIGHT_CHECK(kDeformRoIPool, input.dim() == 4 && input.size(1) == options_.in_channels(),
                   "input must have shape (N, in_channels = ", options_.in_channels(),
                   ", H, W), got ", shape_of(input));
  const torch::Tensor found = offset_fc->forward(pool({}).flatten(1));
  return pool(found.view({-1, 2, options_.pooled_height(), options_.pooled_width()}));
}

}  // namespace tilewright
