// The second stage of Faster R-CNN: classifies each proposal and refines its box.
#pragma once
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <utility>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/box_heads.h"
#include "tilewright/models/faster_rcnn_options.h"

namespace tilewright {

class TILEWRIGHT_API TwoMlpHeadImpl : public torch::nn::Module {
 public:
  TwoMlpHeadImpl(int64_t in_features, int64_t representation_size);
  torch::Tensor forward(const torch::Tensor& pooled);  // (K, C, h, w) -> (K, representation_size)

 private:
  torch::nn::Linear fc6_, fc7_;
};
TORCH_MODULE(TwoMlpHead);

class TILEWRIGHT_API FastRcnnPredictorImpl : public torch::nn::Module {
 public:
  FastRcnnPredictorImpl(int64_t in_features, int64_t num_classes);
  // (K, in_features) -> class logits (K, num_classes), box deltas (K, 4 * num_classes)
  std::pair<torch::Tensor, torch::Tensor> forward(const torch::Tensor& features);

 private:
  torch::nn::Linear cls_score_, bbox_pred_;
};
TORCH_MODULE(FastRcnnPredictor);

class TILEWRIGHT_API RoIHeadsImpl : public BoxHeadsImpl {
 public:
  // strides: pixels per cell of the maps (B, channels, H_l, W_l) that boxes are pooled from, finest
  // first; forward's features are at least as many.
  RoIHeadsImpl(int64_t channels, const std::vector<int64_t>& strides,
               const FasterRCNNOptions& options);

 protected:
  std::pair<torch::Tensor, torch::Tensor> predict(const std::vector<torch::Tensor>& features,
                                                  const torch::Tensor& rois) override;

 private:
  torch::Tensor pool(at::TensorList maps, const torch::Tensor& rois);

  std::vector<double> scales_;
  torch::nn::Sequential offset_fc_ = nullptr;  // of deformable pooling
  TwoMlpHead box_head_;
  FastRcnnPredictor box_predictor_;
};
TORCH_MODULE(RoIHeads);

}  // namespace tilewright
