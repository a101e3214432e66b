// The box head of Faster R-CNN: pooling, two fully connected layers, predictions.
#include "tilewright/models/roi_heads.h"

#include "tilewright/detection/multiscale_roi_align.h"

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
  for (const int64_t stride : strides) scales_.push_back(1.0 / static_cast<double>(stride));
}

std::pair<torch::Tensor, torch::Tensor> RoIHeadsImpl::predict(
    const std::vector<torch::Tensor>& features, const torch::Tensor& rois) {
  const auto pooled =
      multiscale_roi_align(at::TensorList(features).slice(0, scales_.size()), rois, scales_,
                           kPooledSize, kPooledSize, kSamplingRatio);  // (K, C, 7, 7)
  return box_predictor_(box_head_(pooled));
}

}  // namespace tilewright
