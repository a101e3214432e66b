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

// Without bias, and padded to keep the size: torch's Conv2d, or our DeformConv2d.
template <class Layer, class Options>
Layer initialised(Options options, int64_t stride, int64_t dilation) {
  const int64_t reach = dilation * ((*options.kernel_size())[0] / 2);
  Layer layer(options.stride(stride).padding(reach).dilation(dilation).bias(false));
  torch::nn::init::kaiming_normal_(layer->weight, 0.0, torch::kFanOut, torch::kReLU);
  return layer;
}

torch::nn::Conv2d plain(int64_t in_channels, int64_t channels, int64_t kernel, int64_t stride,
                        int64_t dilation = 1) {
  return initialised<torch::nn::Conv2d>(torch::nn::Conv2dOptions(in_channels, channels, kernel),
                                        stride, dilation);
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

ResidualBlockImpl::ResidualBlockImpl(const ResidualBlockOptions& options) {
  const int64_t in_channels = options.in_channels(), channels = options.channels();
  const int64_t stride = options.stride(), dilation = options.dilation();
  const int64_t out_channels = options.bottleneck() ? channels * kExpansion : channels;
  const auto add = [&](Convolution conv) {
    const auto number = std::to_string(convs_.size() + 1);
    convs_.emplace_back(*this, "conv" + number, "bn" + number, std::move(conv), options.norm());
  };
  const auto second = [&](int64_t step) -> Convolution {
    if (!options.deformable()) return plain(channels, channels, 3, step, dilation);
    return initialised<DeformConv2d>(
        DeformConv2dOptions(channels, channels, 3).modulated(options.modulated()), step, dilation);
  };
  if (options.bottleneck()) {
    add(plain(in_channels, channels, 1, 1));
    add(second(stride));
    add(plain(channels, out_channels, 1, 1));
  } else {
    add(plain(in_channels, channels, 3, stride, dilation));
    add(second(1));
  }
  if (stride != 1 || in_channels != out_channels) {
    downsample_ = register_module("downsample", std::make_shared<torch::nn::Module>("downsample"));
    shortcut_.emplace(*downsample_, "0", "1", plain(in_channels, out_channels, 1, stride),
                      options.norm());
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

ResNetImpl::ResNetImpl(const ResNetOptions& options) : pools_(!options.small_images()) {
  const auto blocks = blocks_per_stage(options.depth());
  TILEWRIGHT_CHECK("ResNet", options.stages() >= 1 && options.stages() <= 4,
                   "stages must lie in [1, 4], got ", options.stages());
  TILEWRIGHT_CHECK("ResNet", options.trainable_layers() >= 0 && options.trainable_layers() <= 5,
                   "trainable_layers must lie in [0, 5], got ", options.trainable_layers());
  TILEWRIGHT_CHECK("ResNet", !options.dilate_last_stage() || options.stages() >= 2,
                   "dilate_last_stage needs at least 2 stages, got ", options.stages());
  TILEWRIGHT_CHECK(
      "ResNet", options.deformable_stages() >= 0 && options.deformable_stages() <= options.stages(),
      "deformable_stages must lie in [0, ", options.stages(), "], the stages that are built, got ",
      options.deformable_stages());
  const bool bottleneck = options.depth() >= 50;
  const auto stem = pools_ ? plain(3, kStemChannels, 7, 2) : plain(3, kStemChannels, 3, 1);
  stem_.emplace(*this, "conv1", "bn1", stem, options.norm());
  int64_t in_channels = kStemChannels;
  int64_t total_stride = pools_ ? 4 : 1;  // of the stem and its pooling
  for (int64_t i = 0; i < options.stages(); ++i) {
    torch::nn::Sequential stage;
    std::vector<ResidualBlock> own;
    const bool dilated = i == options.stages() - 1 && options.dilate_last_stage();
    const int64_t stride = i == 0 || dilated ? 1 : 2;
    total_stride *= stride;
    for (int64_t block = 0; block < blocks[i]; ++block) {
      own.emplace_back(ResidualBlockOptions(in_channels, kStemChannels << i)
                           .bottleneck(bottleneck)
                           .stride(block == 0 ? stride : 1)
                           .dilation(dilated ? 2 : 1)
                           .deformable(i >= options.stages() - options.deformable_stages())
                           .modulated(options.modulated())
                           .norm(options.norm()));
      stage->push_back(own.back());
      in_channels = (kStemChannels << i) * (bottleneck ? kExpansion : 1);
    }
    register_module("layer" + std::to_string(i + 1), stage);
    stages_.push_back(std::move(own));
    stage_channels_.push_back(in_channels);
    stage_strides_.push_back(total_stride);
  }
  for (auto& parameter : named_parameters()) {
    parameter.value().set_requires_grad(learns(parameter.key(), options.trainable_layers()));
  }
}

std::vector<torch::Tensor> ResNetImpl::forward(const torch::Tensor& images) {
  auto x = (*stem_)(images).relu_();
  if (pools_) x = torch::max_pool2d(x, 3, 2, 1);
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
