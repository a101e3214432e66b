// The two encoders of whole images.
#include "tilewright/models/image_encoder.h"

#include <torch/nn/init.h>

#include "tilewright/core/check.h"

namespace tilewright {

ConvEncoderImpl::ConvEncoderImpl(int64_t in_channels, const std::vector<int64_t>& widths) {
  const auto blocks = register_module("blocks", std::make_shared<torch::nn::Module>("blocks"));
  for (size_t i = 0; i < widths.size(); ++i) {
    torch::nn::Conv2d conv(torch::nn::Conv2dOptions(in_channels, widths[i], 3)
                               .stride(i == 0 ? 1 : 2)
                               .padding(1)
                               .bias(false));
    torch::nn::init::kaiming_normal_(conv->weight, 0.0, torch::kFanOut, torch::kReLU);
    const auto block =
        blocks->register_module(std::to_string(i), std::make_shared<torch::nn::Module>("block"));
    layers_.emplace_back(*block, "conv", "bn", conv, BatchNormOptions());
    in_channels = widths[i];
  }
  out_features_ = in_channels;
}

torch::Tensor ConvEncoderImpl::forward(const torch::Tensor& images) {
  auto x = images;
  for (auto& layer : layers_) x = layer(x).relu_();
  return x.mean({2, 3});
}

ResNetEncoderImpl::ResNetEncoderImpl(const ResNetOptions& options)
    : body_(register_module("body", ResNet(options))) {}

torch::Tensor ResNetEncoderImpl::forward(const torch::Tensor& images) {
  const auto colours = images.size(1) == 1 ? images.expand({-1, 3, -1, -1}) : images;
  return body_(colours).back().mean({2, 3});
}

}  // namespace tilewright
