// The convolutions of a residual network, plain or deformable, as a normalisation sees them.
#pragma once
#include <torch/nn/modules/conv.h>

#include <memory>
#include <variant>

#include "tilewright/core/export.h"
#include "tilewright/models/deform_conv2d_module.h"

namespace tilewright {

// A handle to a layer without bias, for whose weight another can stand in.
class TILEWRIGHT_API Convolution {
 public:
  Convolution(torch::nn::Conv2d layer) : layer_(std::move(layer)) {}  // NOLINT(runtime/explicit)
  Convolution(DeformConv2d layer) : layer_(std::move(layer)) {}       // NOLINT(runtime/explicit)

  // The layer's convolution of x (B, C_in, H, W) with `weight`, of the shape of its own, and `bias`
  // (C_out,), none where undefined. A deformable layer predicts its offsets from x.
  torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& weight,
                           const torch::Tensor& bias) const;

  const torch::Tensor& weight() const;  // (C_out, C_in / groups, KH, KW)
  std::shared_ptr<torch::nn::Module> module() const;

 private:
  std::variant<torch::nn::Conv2d, DeformConv2d> layer_;
};

}  // namespace tilewright
