// A ResNet without a pyramid as the backbone of a detector: one map, as in the first Faster R-CNN.
#pragma once
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/backbone.h"
#include "tilewright/models/resnet.h"

namespace tilewright {

// The map of the last stage that `options` builds: of stride 16 with three of them (C4).
class TILEWRIGHT_API ResNetBackboneImpl : public DetectionBackboneImpl {
 public:
  explicit ResNetBackboneImpl(const ResNetOptions& options);

  std::vector<torch::Tensor> forward(const torch::Tensor& images) override;
  int64_t out_channels() const override { return body_->stage_channels().back(); }
  int64_t num_levels() const override { return 1; }
  std::vector<int64_t> roi_strides() const override;
  void fold_batch_norm() override { body_->fold_batch_norm(); }

 private:
  ResNet body_;
};
TORCH_MODULE(ResNetBackbone);

}  // namespace tilewright
