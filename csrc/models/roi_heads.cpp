// The box head of Faster R-CNN: pooling, two fully connected layers, predictions.
#include "tilewright/models/roi_heads.h"

#include "tilewright/deform/deform_roi_pool.h"
#include "tilewright/detection/multiscale_roi_align.h"
#include "tilewright/models/deform_roi_pool_module.h"

namespace tilewright {
namespace {

constexpr int64_t kPooledSize = 7;
constexpr int64_t kSamplingRatio = 2;

}  // namespace

TwoMlpHeadImpl::TwoMlpHeadImpl(int64_t in_features, int64_t representation_size)
    : fc6_(in_features, representation_size), fc7_(representation_size, representation_size) {
  register_module("fc6", fc6_);
  register_module("fc7", fc7_);
}

torch::Tensor TwoMlpHeadImpl::forward(const torch::Tensor& pooled) {
  return fc7_(fc6_(pooled.flatten(1)).relu_()).relu_();
}

FastRcnnPredictorImpl::FastRcnnPredictorImpl(int64_t in_features, int64_t num_classes)
    : cls_score_(in_features, num_classes), bbox_pred_(in_features, num_classes * 4) {
  register_module("cls_score", cls_score_);
  register_module("bbox_pred", bbox_pred_);
}

std::pair<torch::Tensor, torch::Tensor> FastRcnnPredictorImpl::forward(
    const torch::Tensor& features) {
  return {cls_score_(features), bbox_pred_(features)};
}

RoIHeadsImpl::RoIHeadsImpl(int64_t channels, const std::vector<int64_t>& strides,
                           const FasterRCNNOptions& options)
    : BoxHeadsImpl(options),
      box_head_(channels * kPooledSize * kPooledSize, options.representation_size()),
      box_predictor_(options.representation_size(), options.num_classes()) {
  register_module("box_head", box_head_);
  register_module("box_predictor", box_predictor_);
  if (options.deformable_pooling()) {
    offset_fc_ = register_module("offset_fc", offset_layers(channels, kPooledSize * kPooledSize,
                                                            options.representation_size()));
  }
  for (const int64_t stride : strides) scales_.push_back(1.0 / static_cast<double>(stride));
}

std::pair<torch::Tensor, torch::Tensor> RoIHeadsImpl::predict(
    const std::vector<torch::Tensor>& features, const torch::Tensor& rois) {
  const auto maps = at::TensorList(features).slice(0, scales_.size());
  return box_predictor_(box_head_(pool(maps, rois)));
}

// (K, C, 7, 7)
torch::Tensor RoIHeadsImpl::pool(at::TensorList maps, const torch::Tensor& rois) {
  if (offset_fc_.is_empty()) {
    return multiscale_roi_align(maps, rois, scales_, kPooledSize, kPooledSize, kSamplingRatio);
  }
  const auto moved = [&](const std::optional<torch::Tensor>& offset) {
    return multiscale_deform_roi_pool(maps, rois, offset, scales_, kPooledSize, kPooledSize,
                                      kSamplingRatio);
  };
  const auto offset = offset_fc_->forward(moved(std::nullopt).flatten(1));
  return moved(offset.view({-1, 2, kPooledSize, kPooledSize}));
}

}  // namespace tilewright
