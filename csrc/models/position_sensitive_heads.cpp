// Position-sensitive score and box maps, and their votes.
#include "tilewright/models/position_sensitive_heads.h"

#include <torch/nn/init.h>

#include "tilewright/deform/deform_roi_pool.h"
#include "tilewright/detection/ps_roi_align.h"
#include "tilewright/detection/ps_roi_pool.h"

namespace tilewright {
namespace {

torch::nn::Conv2d pointwise(int64_t in_channels, int64_t out_channels) {
  torch::nn::Conv2d layer(torch::nn::Conv2dOptions(in_channels, out_channels, 1));
  torch::nn::init::normal_(layer->weight, /*mean=*/0, /*std=*/0.01);
  torch::nn::init::zeros_(layer->bias);
  return layer;
}

}  // namespace

PositionSensitiveVoteImpl::PositionSensitiveVoteImpl(int64_t outputs, int64_t stride,
                                                     const RFCNOptions& options)
    : options_(options),
      outputs_(outputs),
      scale_(1.0 / static_cast<double>(stride)),
      maps_(pointwise(options.head_channels(),
                      outputs * options.pooled_size() * options.pooled_size())) {
  register_module("maps", maps_);
  if (options.pooling() != "deform_ps_roi_pool") return;
  offset_maps_ =
      pointwise(options.head_channels(), 2 * options.pooled_size() * options.pooled_size());
  torch::nn::init::zeros_(offset_maps_->weight);
  register_module("offset_maps", offset_maps_);
}

torch::Tensor PositionSensitiveVoteImpl::forward(const torch::Tensor& map,
                                                 const torch::Tensor& rois) {
  return pool(map, rois).mean({2, 3});
}

// (K, outputs, k, k)
torch::Tensor PositionSensitiveVoteImpl::pool(const torch::Tensor& map, const torch::Tensor& rois) {
  const int64_t bins = options_.pooled_size();
  const auto maps = maps_(map);
  if (!offset_maps_.is_empty()) {
    const auto moved = [&](const torch::Tensor& from, const std::optional<torch::Tensor>& offset,
                           int64_t outputs) {
      return deform_ps_roi_pool(from, rois, offset, scale_, outputs, bins, bins, bins,
                                options_.sampling_ratio());
    };
    return moved(maps, moved(offset_maps_(map), std::nullopt, 2), outputs_);
  }
  if (options_.pooling() == "ps_roi_pool") {
    return std::get<0>(ps_roi_pool(maps, rois, scale_, bins, bins));
  }
  return std::get<0>(ps_roi_align(maps, rois, scale_, bins, bins, options_.sampling_ratio()));
}

PositionSensitiveHeadsImpl::PositionSensitiveHeadsImpl(int64_t channels, int64_t stride,
                                                       const RFCNOptions& options)
    : BoxHeadsImpl(options),
      reduction_(pointwise(channels, options.head_channels())),
      cls_score_(options.num_classes(), stride, options),
      bbox_pred_(4, stride, options) {
  register_module("reduction", reduction_);
  register_module("cls_score", cls_score_);
  register_module("bbox_pred", bbox_pred_);
}

std::pair<torch::Tensor, torch::Tensor> PositionSensitiveHeadsImpl::predict(
    const std::vector<torch::Tensor>& features, const torch::Tensor& rois) {
  const auto map = reduction_(features.back()).relu_();
  return {cls_score_(map, rois), bbox_pred_(map, rois)};
}

}  // namespace tilewright
