// Faster R-CNN as a LibTorch module: trains and detects in a C++ program, without Python.
#pragma once
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <optional>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/backbone.h"
#include "tilewright/models/detection_types.h"
#include "tilewright/models/faster_rcnn_options.h"
#include "tilewright/models/roi_heads.h"
#include "tilewright/models/rpn.h"

namespace tilewright {

// Ren et al. 2015 (arXiv:1506.01497) with a feature pyramid (arXiv:1612.03144), as in torchvision:
// its parameters and buffers carry torchvision's names, so weights travel in both directions.
//
//   tilewright::FasterRCNN model(tilewright::FasterRCNNOptions(/*num_classes=*/4).min_size(320));
//   auto loss = model(images, targets).total_loss();  // training mode
//   model->eval();
//   auto detections = model(images).detections;
class TILEWRIGHT_API FasterRCNNImpl : public torch::nn::Module {
 public:
  // With the ResNet that the options describe, initialised for training from scratch.
  explicit FasterRCNNImpl(const FasterRCNNOptions& options);

  // With any backbone; options.anchor_sizes needs one entry per level of it.
  FasterRCNNImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                 const FasterRCNNOptions& options);

  // images: (3, H_i, W_i) each, in [0, 1], of the dtype (or autocast's) and device of the
  // parameters; sizes may differ. targets: one per image, needed in training mode, ignored in
  // evaluation mode. Training mode returns the losses loss_classifier, loss_box_reg,
  // loss_objectness and loss_rpn_box_reg; evaluation mode returns detections in pixels of the
  // images as given. Errors name the index of the image. The anchors and boxes that enter the
  // losses are drawn with torch::rand on the device of the labels, so torch::manual_seed repeats a
  // step.
  DetectionOutput forward(
      const std::vector<torch::Tensor>& images,
      const std::optional<std::vector<DetectionTarget>>& targets = std::nullopt);

  // For inference: writes every batch norm of the backbone into the convolution before it, and
  // leaves of it a bias under the same name. The model must be in evaluation mode, and stays there:
  // train() is an error afterwards.
  void fold_batch_norm();

  void train(bool on = true) override;

  const FasterRCNNOptions& options() const { return options_; }

 private:
  bool folded_ = false;
  FasterRCNNOptions options_;
  std::shared_ptr<DetectionBackboneImpl> backbone_;
  RegionProposalNetwork rpn_;
  RoIHeads roi_heads_;
};
TORCH_MODULE(FasterRCNN);

}  // namespace tilewright
