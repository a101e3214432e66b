// R-FCN as a LibTorch module: trains and detects in a C++ program, without Python.
#pragma once
#include <torch/nn/pimpl.h>

#include <memory>

#include "tilewright/core/export.h"
#include "tilewright/models/backbone.h"
#include "tilewright/models/detection_types.h"
#include "tilewright/models/rfcn_options.h"
#include "tilewright/models/two_stage_detector.h"

namespace tilewright {

// Dai et al. 2016 (arXiv:1605.06409): no layer has weights that work on each box. A convolution
// reduces the map of a ResNet's last stage, two more make k * k maps for each class and k * k * 4
// for the box, and the bins of a proposal, each pooled from maps of its own, vote. Proposals come
// from the stage before. Losses and detections are computed as Faster R-CNN's, box deltas being
// those of any class.
//
//   tilewright::RFCN model(tilewright::RFCNOptions(/*num_classes=*/21).resnet_depth(50));
//   auto loss = model(images, targets).total_loss();  // training mode
//   model->eval();
//   auto detections = model(images).detections;
class TILEWRIGHT_API RFCNImpl : public TwoStageDetectorImpl {
 public:
  // With the ResNet that the options describe, initialised for training from scratch.
  explicit RFCNImpl(const RFCNOptions& options);

  // With any backbone of one level and one stride, that of its last map; throws for others, and
  // where options ask for deformable_stages, which are the default backbone's.
  RFCNImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone, const RFCNOptions& options);

  const RFCNOptions& options() const { return options_; }

 private:
  RFCNImpl(const RFCNOptions& checked, const std::shared_ptr<DetectionBackboneImpl>& backbone);

  RFCNOptions options_;
};
TORCH_MODULE(RFCN);

}  // namespace tilewright
