// Residual blocks and the ResNet body.
#include "tilewright/models/resnet.h"

#include <torch/nn/functional/pooling.h>
#include <torch/nn/init.h>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

torch::nn::Conv2d convolution(int64_t in_channels, int64_t channels, int64_t kernel,
                              int64_t stride) {
  torch::nn::Conv2d layer(torch::nn::Conv2dOptions(in_channels, channels, kernel)
                              .stride(stride)
                              .padding(kernel / 2)
                              .bias(false));
  torch::nn::init::kaiming_normal_(layer->weight, 0.0, torch::kFanOut, torch::kReLU);
  return layer;
}

}  // namespace

BasicBlockImpl::BasicBlockImpl(int64_t in_channels, int64_t channels, int64_t stride)
    : conv1_(convolution(in_channels, channels, 3, stride)),
      conv2_(convolution(channels, channels, 3, 1)),
      bn1_(channels),
      bn2_(channels) {
  register_module("conv1", conv1_);
  register_module("bn1", bn1_);
  register_module("conv2", conv2_);
  register_module("bn2", bn2_);
  if (stride != 1 || in_channels != channels) {
    downsample_ = torch::nn::Sequential(convolution(in_channels, channels, 1, stride),
                                        torch::nn::BatchNorm2d(channels));
    register_module("downsample", downsample_);
  }
}

torch::Tensor BasicBlockImpl::forward(const torch::Tensor& x) {
  auto out = bn1_(conv1_(x)).relu_();
  out = bn2_(conv2_(out));
  return out.add_(downsample_ ? downsample_->forward(x) : x).relu_();
}

ResNetImpl::ResNetImpl(const ResNetOptions& options) : conv1_(nullptr), bn1_(nullptr) {
  TILEWRIGHT_CHECK("ResNet", options.blocks().size() == 4,
                   "blocks must hold the count of each of the 4 stages, got ",
                   options.blocks().size());
  constexpr int64_t kStemChannels = 64;
  conv1_ = register_module("conv1", convolution(3, kStemChannels, 7, 2));
  bn1_ = register_module("bn1", torch::nn::BatchNorm2d(kStemChannels));
  int64_t in_channels = kStemChannels;
  for (size_t i = 0; i < options.blocks().size(); ++i) {
    const int64_t channels = kStemChannels << i;
    torch::nn::Sequential stage;
    for (int64_t block = 0; block < options.blocks()[i]; ++block) {
      const int64_t stride = block == 0 && i > 0 ? 2 : 1;
      stage->push_back(BasicBlock(in_channels, channels, stride));
      in_channels = channels;
    }
    stages_.push_back(register_module("layer" + std::to_string(i + 1), stage));
    stage_channels_.push_back(channels);
  }
}

std::vector<torch::Tensor> ResNetImpl::forward(const torch::Tensor& images) {
  auto x = bn1_(conv1_(images)).relu_();
  x = torch::max_pool2d(x, 3, 2, 1);
  std::vector<torch::Tensor> maps;
  for (auto& stage : stages_) {
    x = stage->forward(x);
    maps.push_back(x);
  }
  return maps;
}

}  // namespace tilewright
