// The second stage of Faster R-CNN: classifies each proposal and refines its box.
#pragma once
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <utility>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/detection_types.h"
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

class TILEWRIGHT_API RoIHeadsImpl : public torch::nn::Module {
 public:
  // strides: pixels per cell of the maps that boxes are pooled from, finest first.
  RoIHeadsImpl(int64_t channels, const std::vector<int64_t>& strides, FasterRCNNOptions options);

  struct Output {
    NamedLosses losses;                 // loss_classifier and loss_box_reg, in training mode
    std::vector<Detection> detections;  // in pixels of the batch, in evaluation mode
  };
  // features: maps (B, channels, H_l, W_l), at least as many as strides. proposals: per image (P_i,
  // 4). targets: per image, in pixels of the batch; empty in evaluation mode.
  Output forward(const std::vector<torch::Tensor>& features, std::vector<torch::Tensor> proposals,
                 const std::vector<ImageSize>& image_sizes,
                 const std::vector<DetectionTarget>& targets);

 private:
  struct Samples {
    std::vector<torch::Tensor> boxes;  // per image
    torch::Tensor labels;              // (K,)
    torch::Tensor regression;          // (K, 4)
  };
  Samples select_samples(const std::vector<torch::Tensor>& proposals,
                         const std::vector<DetectionTarget>& targets);
  NamedLosses losses(const torch::Tensor& logits, const torch::Tensor& deltas,
                     const Samples& samples);
  std::vector<Detection> detect(const torch::Tensor& logits, const torch::Tensor& deltas,
                                const std::vector<torch::Tensor>& proposals,
                                const std::vector<ImageSize>& image_sizes);

  FasterRCNNOptions options_;
  std::vector<double> scales_;
  TwoMlpHead box_head_;
  FastRcnnPredictor box_predictor_;
};
TORCH_MODULE(RoIHeads);

}  // namespace tilewright
