// A ResNet without a pyramid as the backbone of a detector: one map, as in the first Faster R-CNN,
// or two, as in R-FCN.
#pragma once
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/backbone.h"
#include "tilewright/models/resnet.h"

namespace tilewright {

// The map of the last stage that `options` builds: of stride 16 with three of them (C4), or with
// four of which the last is dilated (DC5).
class TILEWRIGHT_API ResNetBackboneImpl : public DetectionBackboneImpl {
 public:
  explicit ResNetBackboneImpl(const ResNetOptions& options);

  std::vector<torch::Tensor> forward(const torch::Tensor& images) override;
  int64_t out_channels() const override { return body_->stage_channels().back(); }
  int64_t num_levels() const override { return 1; }
  std::vector<int64_t> roi_strides() const override { return {body_->stage_strides().back()}; }
  void fold_batch_norm() override { body_->fold_batch_norm(); }

 private:
  ResNet body_;
};
TORCH_MODULE(ResNetBackbone);

// What R-FCN looks at (arXiv:1605.06409, section 3), the last two stages that options build: of
// four, regions are proposed on the map of the third (C4), and classified on that of the fourth
// (C5), of stride 16 where options dilate it.
class TILEWRIGHT_API ResNetC4C5BackboneImpl : public DetectionBackboneImpl {
 public:
  explicit ResNetC4C5BackboneImpl(const ResNetOptions& options);

  std::vector<torch::Tensor> forward(const torch::Tensor& images) override;  // of two stages
  int64_t out_channels() const override { return from_last(body_->stage_channels(), 2); }
  int64_t last_channels() const override { return from_last(body_->stage_channels(), 1); }
  int64_t num_levels() const override { return 1; }
  std::vector<int64_t> roi_strides() const override { return {body_->stage_strides().back()}; }
  void fold_batch_norm() override { body_->fold_batch_norm(); }

 private:
  static int64_t from_last(const std::vector<int64_t>& values, size_t place) {
    return values[values.size() - place];
  }

  ResNet body_;
};
TORCH_MODULE(ResNetC4C5Backbone);

}  // namespace tilewright
