// The residual network under the detectors: stem and stages, without the classifier.
#pragma once
#include <torch/arg.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/batch_norm.h"

namespace tilewright {

struct TILEWRIGHT_API ResidualBlockOptions {
  ResidualBlockOptions(int64_t in_channels, int64_t channels)
      : in_channels_(in_channels), channels_(channels) {}

  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, channels);
  TORCH_ARG(bool, bottleneck) = false;
  TORCH_ARG(int64_t, stride) = 1;
  // Of the 3x3 convolutions.
  TORCH_ARG(int64_t, dilation) = 1;
  // The second convolution is deformable; modulated: with masks.
  TORCH_ARG(bool, deformable) = false;
  TORCH_ARG(bool, modulated) = false;
  TORCH_ARG(BatchNormOptions, norm);
};

// A residual block (He et al. 2015, arXiv:1512.03385, figure 5): two 3x3 convolutions, or as a
// bottleneck 1x1, 3x3 (which strides) and 1x1 of four times the channels; and a shortcut.
class TILEWRIGHT_API ResidualBlockImpl : public torch::nn::Module {
 public:
  explicit ResidualBlockImpl(const ResidualBlockOptions& options);

  torch::Tensor forward(const torch::Tensor& x);  // (B, in, H, W) -> (B, out, H / s, W / s)
  void fold_batch_norm();

 private:
  std::vector<NormalizedConv> convs_;
  std::shared_ptr<torch::nn::Module> downsample_;  // only where the shortcut changes shape
  std::optional<NormalizedConv> shortcut_;         // its parts
};
TORCH_MODULE(ResidualBlock);

struct TILEWRIGHT_API ResNetOptions {
  ResNetOptions(int64_t depth = 18) : depth_(depth) {}  // NOLINT(runtime/explicit)

  // 18, 34, 50 or 101 layers; from 50 on the blocks are bottlenecks.
  TORCH_ARG(int64_t, depth);
  // How many of the four stages are built.
  TORCH_ARG(int64_t, stages) = 4;
  TORCH_ARG(BatchNormOptions, norm);
  // How many of stem and four stages learn, counted from the last: 3 leaves stem and layer1 as they
  // are, 0 leaves all.
  TORCH_ARG(int64_t, trainable_layers) = 5;
  // The last of them keeps the stride of the one before (16 of all four), and its 3x3 convolutions
  // have dilation 2.
  TORCH_ARG(bool, dilate_last_stage) = false;
  // In so many of the built stages, counted from the last, the second convolution of each block
  // (a bottleneck's 3x3) is a DeformConv2d of the same weight; modulated: with masks (version 2).
  TORCH_ARG(int64_t, deformable_stages) = 0;
  TORCH_ARG(bool, modulated) = false;
  // The stem is one 3x3 convolution that keeps the sides, without pooling: strides are a fourth.
  TORCH_ARG(bool, small_images) = false;
};

// Parameters are named as in torchvision's ResNet and initialised like it (Kaiming normal, fan
// out); deformable convolutions have a conv_offset beside their weight, which is zero.
class TILEWRIGHT_API ResNetImpl : public torch::nn::Module {
 public:
  explicit ResNetImpl(const ResNetOptions& options = {});

  // (B, 3, H, W) -> the outputs of the stages, at the strides that stage_strides has.
  std::vector<torch::Tensor> forward(const torch::Tensor& images);

  // Writes every batch norm into the convolution before it.
  void fold_batch_norm();

  const std::vector<int64_t>& stage_channels() const { return stage_channels_; }

  // Pixels per cell: 4, 8, 16 and 32, or 16 twice; a fourth of these with small_images.
  const std::vector<int64_t>& stage_strides() const { return stage_strides_; }

 private:
  std::optional<NormalizedConv> stem_;
  std::vector<std::vector<ResidualBlock>> stages_;
  std::vector<int64_t> stage_channels_, stage_strides_;
  bool pools_;  // behind the stem
};
TORCH_MODULE(ResNet);

}  // namespace tilewright
