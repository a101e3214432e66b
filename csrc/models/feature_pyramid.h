// The feature pyramid over a ResNet: every level with the same channels and with coarse context.
#pragma once
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/container/sequential.h>

#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/backbone.h"
#include "tilewright/models/resnet.h"

namespace tilewright {

// Lin et al. 2017, arXiv:1612.03144. One more level is made by taking every second cell of the
// last.
class TILEWRIGHT_API FeaturePyramidImpl : public torch::nn::Module {
 public:
  FeaturePyramidImpl(const std::vector<int64_t>& in_channels, int64_t out_channels);

  // maps: (B, in_channels[l], H_l, W_l), finest first. Returns one map more than it got.
  std::vector<torch::Tensor> forward(const std::vector<torch::Tensor>& maps);

 private:
  std::vector<torch::nn::Sequential> inner_blocks_, layer_blocks_;
};
TORCH_MODULE(FeaturePyramid);

// ResNet with a feature pyramid: strides 4, 8, 16, 32 for boxes, and 64 for proposals.
class TILEWRIGHT_API ResNetFpnBackboneImpl : public DetectionBackboneImpl {
 public:
  explicit ResNetFpnBackboneImpl(const ResNetOptions& options = {}, int64_t out_channels = 256);

  std::vector<torch::Tensor> forward(const torch::Tensor& images) override;
  int64_t out_channels() const override { return out_channels_; }
  int64_t num_levels() const override { return 5; }
  std::vector<int64_t> roi_strides() const override { return {4, 8, 16, 32}; }
  void fold_batch_norm() override { body_->fold_batch_norm(); }

 private:
  int64_t out_channels_;
  ResNet body_;
  FeaturePyramid fpn_;
};
TORCH_MODULE(ResNetFpnBackbone);

}  // namespace tilewright
