// Faster R-CNN as a LibTorch module: trains and detects in a C++ program, without Python.
#pragma once
#include <torch/nn/pimpl.h>

#include <memory>

#include "tilewright/core/export.h"
#include "tilewright/models/backbone.h"
#include "tilewright/models/detection_types.h"
#include "tilewright/models/faster_rcnn_options.h"
#include "tilewright/models/two_stage_detector.h"

namespace tilewright {

// Ren et al. 2015 (arXiv:1506.01497) with a feature pyramid (arXiv:1612.03144), as in torchvision:
// its parameters and buffers carry torchvision's names, so weights travel in both directions.
//
//   tilewright::FasterRCNN model(tilewright::FasterRCNNOptions(/*num_classes=*/4).min_size(320));
//   auto loss = model(images, targets).total_loss();  // training mode
//   model->eval();
//   auto detections = model(images).detections;
class TILEWRIGHT_API FasterRCNNImpl : public TwoStageDetectorImpl {
 public:
  // With the ResNet that the options describe, initialised for training from scratch.
  explicit FasterRCNNImpl(const FasterRCNNOptions& options);

  // With any backbone; options.anchor_sizes needs one entry per level of it. Throws where options
  // ask for deformable_stages, which are the default backbone's.
  FasterRCNNImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                 const FasterRCNNOptions& options);

  const FasterRCNNOptions& options() const { return options_; }

 private:
  FasterRCNNImpl(const FasterRCNNOptions& checked,
                 const std::shared_ptr<DetectionBackboneImpl>& backbone);

  FasterRCNNOptions options_;
};
TORCH_MODULE(FasterRCNN);

}  // namespace tilewright
