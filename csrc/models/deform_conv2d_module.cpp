// The layer of the deformable convolution.
#include "tilewright/models/deform_conv2d_module.h"

#include <torch/nn/init.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/optional_tensor.h"
#include "tilewright/deform/deform_conv2d.h"

namespace tilewright {
namespace {

constexpr const char* kDeformConv2d = "DeformConv2d";  // in messages

int64_t offset_taps(const DeformConv2dOptions& options) {
  return options.offset_groups() * options.kernel_size()->at(0) * options.kernel_size()->at(1);
}

void check_at_least(const char* name, at::IntArrayRef numbers, int64_t least) {
  for (const int64_t number : numbers) {
    TILEWRIGHT_CHECK(kDeformConv2d, number >= least, name, " must be at least ", least, ", got ",
                     numbers);
  }
}

void check_divides(const char* divisor, int64_t groups, const char* name, int64_t channels) {
  TILEWRIGHT_CHECK(kDeformConv2d, groups >= 1 && channels % groups == 0, divisor, " (", groups,
                   ") must divide ", name, " (", channels, ")");
}

}  // namespace

DeformConv2dImpl::DeformConv2dImpl(const DeformConv2dOptions& options_) : options(options_) {
  DeformConv2dImpl::reset();
}

void DeformConv2dImpl::reset() {
  check_at_least("in_channels", options.in_channels(), 1);
  check_at_least("out_channels", options.out_channels(), 1);
  check_at_least("kernel_size", *options.kernel_size(), 1);
  check_at_least("stride", *options.stride(), 1);
  check_at_least("padding", *options.padding(), 0);
  check_at_least("dilation", *options.dilation(), 1);
  check_divides("groups", options.groups(), "in_channels", options.in_channels());
  check_divides("groups", options.groups(), "out_channels", options.out_channels());
  check_divides("offset_groups", options.offset_groups(), "in_channels", options.in_channels());
  const auto& kernel = *options.kernel_size();
  weight = register_parameter(
      "weight", torch::empty({options.out_channels(), options.in_channels() / options.groups(),
                              kernel[0], kernel[1]}));
  if (options.bias()) bias = register_parameter("bias", torch::empty({options.out_channels()}));
  conv_offset = register_module(
      "conv_offset", torch::nn::Conv2d(torch::nn::Conv2dOptions(
                                           options.in_channels(),
                                           (options.modulated() ? 3 : 2) * offset_taps(options),
                                           options.kernel_size())
                                           .stride(options.stride())
                                           .padding(options.padding())
                                           .dilation(options.dilation())));
  reset_parameters();
}

void DeformConv2dImpl::reset_parameters() {
  torch::nn::init::kaiming_uniform_(weight, /*a=*/std::sqrt(5.0));
  if (bias.defined()) {
    const double bound = 1 / std::sqrt(static_cast<double>(weight[0].numel()));  // fan in
    torch::nn::init::uniform_(bias, -bound, bound);
  }
  torch::nn::init::zeros_(conv_offset->weight);
  torch::nn::init::zeros_(conv_offset->bias);
}

void DeformConv2dImpl::pretty_print(std::ostream& stream) const {
  stream << "tilewright::DeformConv2d(" << options.in_channels() << ", " << options.out_channels()
         << ", kernel_size=" << options.kernel_size() << ", stride=" << options.stride()
         << ", padding=" << options.padding() << ", dilation=" << options.dilation()
         << ", groups=" << options.groups() << ", offset_groups=" << options.offset_groups()
         << ", modulated=" << (options.modulated() ? "true" : "false")
         << (options.bias() ? ")" : ", bias=false)");
}

torch::Tensor DeformConv2dImpl::forward(const torch::Tensor& input, const torch::Tensor& offset,
                                        const torch::Tensor& mask) {
  if (offset.defined()) return deformed(input, weight, bias, offset, mask);
  TILEWRIGHT_CHECK(kDeformConv2d, !mask.defined(), "mask needs an offset beside it");
  return convolve(input, weight, bias);
}

std::pair<torch::Tensor, torch::Tensor> DeformConv2dImpl::predict(const torch::Tensor& input) {
  const auto found = conv_offset(input);
  if (!options.modulated()) return {found, torch::Tensor()};
  const int64_t taps = offset_taps(options);
  return {found.slice(1, 0, 2 * taps), found.slice(1, 2 * taps).sigmoid()};
}

torch::Tensor DeformConv2dImpl::convolve(const torch::Tensor& input, const torch::Tensor& weight,
                                         const torch::Tensor& bias) {
  const auto [offset, mask] = predict(input);
  return deformed(input, weight, bias, offset, mask);
}

torch::Tensor DeformConv2dImpl::deformed(const torch::Tensor& input, const torch::Tensor& weight,
                                         const torch::Tensor& bias, const torch::Tensor& offset,
                                         const torch::Tensor& mask) const {
  return deform_conv2d(input, weight, offset, optional_of(mask), optional_of(bias),
                       *options.stride(), *options.padding(), *options.dilation(), options.groups(),
                       options.offset_groups());
}

}  // namespace tilewright
