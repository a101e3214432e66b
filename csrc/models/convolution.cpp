// The two kinds of convolutions, called with weights from outside.
#include "tilewright/models/convolution.h"

namespace tilewright {

torch::Tensor Convolution::operator()(const torch::Tensor& x, const torch::Tensor& weight,
                                      const torch::Tensor& bias) const {
  if (const auto* deformable = std::get_if<DeformConv2d>(&layer_)) {
    return deformable->ptr()->convolve(x, weight, bias);
  }
  const auto& options = std::get<torch::nn::Conv2d>(layer_)->options;
  return torch::conv2d(x, weight, bias, options.stride(),
                       std::get<torch::ExpandingArray<2>>(options.padding()), options.dilation(),
                       options.groups());
}

const torch::Tensor& Convolution::weight() const {
  return std::visit([](const auto& layer) -> const torch::Tensor& { return layer->weight; },
                    layer_);
}

std::shared_ptr<torch::nn::Module> Convolution::module() const {
  return std::visit(
      [](const auto& layer) -> std::shared_ptr<torch::nn::Module> { return layer.ptr(); }, layer_);
}

}  // namespace tilewright
