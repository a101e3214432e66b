// What Faster R-CNN and R-FCN have in common: images in, losses or detections out.
#pragma once
#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/backbone.h"
#include "tilewright/models/box_heads.h"
#include "tilewright/models/detection_types.h"
#include "tilewright/models/detector_options.h"
#include "tilewright/models/resnet.h"
#include "tilewright/models/rpn.h"

namespace tilewright {

class TILEWRIGHT_API TwoStageDetectorImpl : public torch::nn::Module {
 public:
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

 protected:
  // Registers `backbone` and `rpn`; a model adds its second stage.
  TwoStageDetectorImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                       const DetectorOptions& options);
  void add_roi_heads(const std::shared_ptr<BoxHeadsImpl>& heads);

 private:
  bool folded_ = false;
  DetectorOptions options_;
  std::shared_ptr<DetectionBackboneImpl> backbone_;
  RegionProposalNetwork rpn_;
  std::shared_ptr<BoxHeadsImpl> roi_heads_;
};

// The ResNet that the options of a detector describe, with all its stages.
ResNetOptions resnet_options(const DetectorOptions& options);

}  // namespace tilewright
