#include "tilewright/models/deform_roi_pool_module.h"

#include <torch/nn/init.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/linear.h>

#include "tilewright/core/optional_tensor.h"
#include "tilewright/deform/deform_roi_pool.h"

namespace tilewright {

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
  const torch::Tensor found = offset_fc->forward(pool({}).flatten(1));
  return pool(found.view({-1, 2, options_.pooled_height(), options_.pooled_width()}));
}

}  // namespace tilewright
