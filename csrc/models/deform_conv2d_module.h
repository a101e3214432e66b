// The deformable convolution as a layer that predicts its own offsets, and masks, from its input.
#pragma once
#include <torch/arg.h>
#include <torch/expanding_array.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any_value.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/pimpl.h>

#include <utility>

#include "tilewright/core/export.h"

namespace tilewright {

// As torch::nn::Conv2dOptions, and what deforms it.
struct TILEWRIGHT_API DeformConv2dOptions {
  DeformConv2dOptions(int64_t in_channels, int64_t out_channels,
                      torch::ExpandingArray<2> kernel_size)
      : in_channels_(in_channels), out_channels_(out_channels), kernel_size_(kernel_size) {}

  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, out_channels);
  TORCH_ARG(torch::ExpandingArray<2>, kernel_size);
  TORCH_ARG(torch::ExpandingArray<2>, stride) = 1;
  TORCH_ARG(torch::ExpandingArray<2>, padding) = 0;
  TORCH_ARG(torch::ExpandingArray<2>, dilation) = 1;
  TORCH_ARG(int64_t, groups) = 1;
  TORCH_ARG(bool, bias) = true;
  // Groups of channels that move together.
  TORCH_ARG(int64_t, offset_groups) = 1;
  // Predict masks as well (version 2).
  TORCH_ARG(bool, modulated) = true;
};

// Deformable ConvNets, arXiv:1703.06211; with masks version 2, arXiv:1811.11168. The twin of
// tilewright.DeformConv2d in Python: `weight`, `bias`, and the convolution `conv_offset`, of the
// same kernel, stride, padding and dilation, that gives 2 * offset_groups * KH * KW offsets a place
// and, where modulated, as many halves of those as logits of masks. It begins at zero: offsets of
// 0, masks of 1/2. Throws where groups or offset_groups do not divide the channels.
class TILEWRIGHT_API DeformConv2dImpl : public torch::nn::Cloneable<DeformConv2dImpl> {
 public:
  explicit DeformConv2dImpl(const DeformConv2dOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  // (N, in_channels, H, W) -> (N, out_channels, OH, OW). With an offset (and mask), as
  // deform_conv2d takes them, nothing is predicted.
  torch::Tensor forward(const torch::Tensor& input, const torch::Tensor& offset = {},
                        const torch::Tensor& mask = {});

  // Offsets (N, 2 * offset_groups * KH * KW, OH, OW), and masks (N, offset_groups * KH * KW, OH,
  // OW), undefined where not modulated.
  std::pair<torch::Tensor, torch::Tensor> predict(const torch::Tensor& input);

  // The deformed convolution with another weight and bias (undefined: none) than its own.
  torch::Tensor convolve(const torch::Tensor& input, const torch::Tensor& weight,
                         const torch::Tensor& bias);

  // The weights as torch::nn::Conv2d begins; offsets of 0.
  void reset_parameters();

  DeformConv2dOptions options;
  torch::Tensor weight;  // (out_channels, in_channels / groups, KH, KW)
  torch::Tensor bias;    // (out_channels,), undefined where there is none
  torch::nn::Conv2d conv_offset{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(torch::Tensor())},
                           {2, torch::nn::AnyValue(torch::Tensor())})

 private:
  torch::Tensor deformed(const torch::Tensor& input, const torch::Tensor& weight,
                         const torch::Tensor& bias, const torch::Tensor& offset,
                         const torch::Tensor& mask) const;
};
TORCH_MODULE(DeformConv2d);

}  // namespace tilewright
