// Residual blocks and the ResNet body.
#include "tilewright/models/resnet.h"

#include <torch/nn/init.h>
#include <torch/nn/modules/container/sequential.h>

#include <array>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

constexpr int64_t kStemChannels = 64;
constexpr int64_t kExpansion = 4;  // of a bottleneck's channels in its output

torch::nn::Conv2d convolution(int64_t in_channels, int64_t channels, int64_t kernel,
                              int64_t stride) {
  torch::nn::Conv2d layer(torch::nn::Conv2dOptions(in_channels, channels, kernel)
                              .stride(stride)
                              .padding(kernel / 2)
                              .bias(false));
  torch::nn::init::kaiming_normal_(layer->weight, 0.0, torch::kFanOut, torch::kReLU);
  return layer;
}

std::array<int64_t, 4> blocks_per_stage(int64_t depth) {
  switch (depth) {
    case 18: return {2, 2, 2, 2};
    case 34:
    case 50: return {3, 4, 6, 3};
    case 101: return {3, 4, 23, 3};
    default: TILEWRIGHT_CHECK("ResNet", false, "depth must be 18, 34, 50 or 101, got ", depth);
  }
}

// Whether a parameter of this name learns where so many layers do.
bool learns(const std::string& name, int64_t trainable_layers) {
  if (trainable_layers >= 5) return true;
  for (int64_t stage = 4; stage > 4 - trainable_layers; --stage) {
    if (name.rfind("layer" + std::to_string(stage) + ".", 0) == 0) return true;
  }
  return false;
}

}  // namespace

ResidualBlockImpl::ResidualBlockImpl(int64_t in_channels, int64_t channels, int64_t stride,
                                     bool bottleneck, const BatchNormOptions& norm) {
  const auto add = [&](int64_t in, int64_t out, int64_t kernel, int64_t step) {
    const auto number = std::to_string(convs_.size() + 1);
    convs_.emplace_back(*this, "conv" + number, "bn" + number, convolution(in, out, kernel, step),
                        norm);
  };
  const int64_t out_channels = bottleneck ? channels * kExpansion : channels;
  if (bottleneck) {
    add(in_channels, channels, 1, 1);
    add(channels, channels, 3, stride);
    add(channels, out_channels, 1, 1);
  } else {
    add(in_channels, channels, 3, stride);
    add(channels, channels, 3, 1);
  }
  if (stride != 1 || in_channels != out_channels) {
    downsample_ = register_module("downsample", std::make_shared<torch::nn::Module>("downsample"));
    shortcut_.emplace(*downsample_, "0", "1", convolution(in_channels, out_channels, 1, stride),
                      norm);
  }
}

torch::Tensor ResidualBlockImpl::forward(const torch::Tensor& x) {
  auto out = x;
  for (size_t i = 0; i + 1 < convs_.size(); ++i) out = convs_[i](out).relu_();
  return convs_.back()(out).add_(shortcut_ ? (*shortcut_)(x) : x).relu_();
}

void ResidualBlockImpl::fold_batch_norm() {
  for (auto& conv : convs_) conv.fold(*this);
  if (shortcut_) shortcut_->fold(*downsample_);
}

ResNetImpl::ResNetImpl(const ResNetOptions& options) {
  const auto blocks = blocks_per_stage(options.depth());
  TILEWRIGHT_CHECK("ResNet", options.stages() >= 1 && options.stages() <= 4,
                   "stages must lie in [1, 4], got ", options.stages());
  TILEWRIGHT_CHECK("ResNet", options.trainable_layers() >= 0 && options.trainable_layers() <= 5,
                   "trainable_layers must lie in [0, 5], got ", options.trainable_layers());
  const bool bottleneck = options.depth() >= 50;
  stem_.emplace(*this, "conv1", "bn1", convolution(3, kStemChannels, 7, 2), options.norm());
  int64_t in_channels = kStemChannels;
  for (int64_t i = 0; i < options.stages(); ++i) {
    torch::nn::Sequential stage;
    std::vector<ResidualBlock> own;
    for (int64_t block = 0; block < blocks[i]; ++block) {
      const int64_t stride = block == 0 && i > 0 ? 2 : 1;
      own.emplace_back(in_channels, kStemChannels << i, stride, bottleneck, options.norm());
      stage->push_back(own.back());
      in_channels = (kStemChannels << i) * (bottleneck ? kExpansion : 1);
    }
    register_module("layer" + std::to_string(i + 1), stage);
    stages_.push_back(std::move(own));
    stage_channels_.push_back(in_channels);
  }
  for (auto& parameter : named_parameters()) {
    parameter.value().set_requires_grad(learns(parameter.key(), options.trainable_layers()));
  }
}

std::vector<torch::Tensor> ResNetImpl::forward(const torch::Tensor& images) {
  auto x = torch::max_pool2d((*stem_)(images).relu_(), 3, 2, 1);
  std::vector<torch::Tensor> maps;
  for (auto& stage : stages_) {
    for (auto& block : stage) x = block(x);
    maps.push_back(x);
  }
  return maps;
}

void ResNetImpl::fold_batch_norm() {
  stem_->fold(*this);
  for (auto& stage : stages_) {
    for (auto& block : stage) block->fold_batch_norm();
  }
}

}  // namespace tilewright
