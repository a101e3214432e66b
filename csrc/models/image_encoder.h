// What turns an image into one vector, in models that learn without labels.
#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/batch_norm.h"
#include "tilewright/models/resnet.h"

namespace tilewright {

// A model asks for no more: derive from it to bring your own.
class TILEWRIGHT_API ImageEncoderImpl : public torch::nn::Module {
 public:
  // (N, C, H, W) in [0, 1] -> (N, out_features()).
  virtual torch::Tensor forward(const torch::Tensor& images) = 0;
  virtual int64_t out_features() const = 0;
};

// For images of 8x8 to 32x32: 3x3 convolutions of so many channels each, with batch norm and ReLU,
// of which all but the first halve the sides; then the mean over places.
class TILEWRIGHT_API ConvEncoderImpl : public ImageEncoderImpl {
 public:
  ConvEncoderImpl(int64_t in_channels, const std::vector<int64_t>& widths);

  torch::Tensor forward(const torch::Tensor& images) override;
  int64_t out_features() const override { return out_features_; }

 private:
  std::vector<NormalizedConv> layers_;
  int64_t out_features_;
};
TORCH_MODULE(ConvEncoder);

// The mean over places of a ResNet's last stage. Grey images become three equal channels.
class TILEWRIGHT_API ResNetEncoderImpl : public ImageEncoderImpl {
 public:
  explicit ResNetEncoderImpl(const ResNetOptions& options);

  torch::Tensor forward(const torch::Tensor& images) override;
  int64_t out_features() const override { return body_->stage_channels().back(); }

 private:
  ResNet body_;
};
TORCH_MODULE(ResNetEncoder);

}  // namespace tilewright
