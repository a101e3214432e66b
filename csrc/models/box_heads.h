// What the second stages of detectors have in common: sampling, losses and detections.
#pragma once
#include <torch/nn/module.h>

#include <utility>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/detection_types.h"
#include "tilewright/models/detector_options.h"

namespace tilewright {

// Classifies each proposal and refines its box by what `predict` says of it.
class TILEWRIGHT_API BoxHeadsImpl : public torch::nn::Module {
 public:
  explicit BoxHeadsImpl(DetectorOptions options) : options_(std::move(options)) {}

  struct Output {
    NamedLosses losses;                 // loss_classifier and loss_box_reg, in training mode
    std::vector<Detection> detections;  // in pixels of the batch, in evaluation mode
  };
  // features: what the backbone returned. proposals: per image (P_i, 4). targets: per image, in
  // pixels of the batch; empty in evaluation mode.
  Output forward(const std::vector<torch::Tensor>& features, std::vector<torch::Tensor> proposals,
                 const std::vector<ImageSize>& image_sizes,
                 const std::vector<DetectionTarget>& targets);

 protected:
  // rois: (K, 5), as boxes_to_rois gives them. Returns class logits (K, num_classes), and box
  // deltas of each class (K, 4 * num_classes) or of any (K, 4).
  virtual std::pair<torch::Tensor, torch::Tensor> predict(
      const std::vector<torch::Tensor>& features, const torch::Tensor& rois) = 0;

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

  DetectorOptions options_;
};

}  // namespace tilewright
