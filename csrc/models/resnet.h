// The residual network under the detectors: stem and four stages, without the classifier.
#pragma once
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/pimpl.h>

#include <array>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// Two 3x3 convolutions and a shortcut (He et al. 2015, arXiv:1512.03385, figure 2).
class TILEWRIGHT_API BasicBlockImpl : public torch::nn::Module {
 public:
  BasicBlockImpl(int64_t in_channels, int64_t channels, int64_t stride);
  torch::Tensor forward(const torch::Tensor& x);  // (B, in, H, W) -> (B, channels, H / s, W / s)

 private:
  torch::nn::Conv2d conv1_, conv2_;
  torch::nn::BatchNorm2d bn1_, bn2_;
  torch::nn::Sequential downsample_{nullptr};  // only where the shortcut changes shape
};
TORCH_MODULE(BasicBlock);

struct TILEWRIGHT_API ResNetOptions {
  // Blocks per stage; the default is ResNet-18.
  TORCH_ARG(std::vector<int64_t>, blocks) = {2, 2, 2, 2};
};

// Parameters are named as in torchvision's ResNet and initialised like it (Kaiming normal, fan
// out).
class TILEWRIGHT_API ResNetImpl : public torch::nn::Module {
 public:
  explicit ResNetImpl(const ResNetOptions& options = {});

  // (B, 3, H, W) -> the outputs of the four stages, at strides 4, 8, 16 and 32.
  std::vector<torch::Tensor> forward(const torch::Tensor& images);

  const std::vector<int64_t>& stage_channels() const { return stage_channels_; }

 private:
  torch::nn::Conv2d conv1_;
  torch::nn::BatchNorm2d bn1_;
  std::vector<torch::nn::Sequential> stages_;
  std::vector<int64_t> stage_channels_;
};
TORCH_MODULE(ResNet);

}  // namespace tilewright
