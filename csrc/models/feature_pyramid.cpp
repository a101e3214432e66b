// The feature pyramid's layers and the backbone that joins it with a ResNet.
#include "tilewright/models/feature_pyramid.h"

#include <torch/nn/functional/upsampling.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/conv.h>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

namespace F = torch::nn::functional;

torch::nn::Sequential block(int64_t in_channels, int64_t out_channels, int64_t kernel) {
  torch::nn::Conv2d layer(
      torch::nn::Conv2dOptions(in_channels, out_channels, kernel).padding(kernel / 2));
  torch::nn::init::kaiming_uniform_(layer->weight, /*a=*/1);
  torch::nn::init::zeros_(layer->bias);
  return torch::nn::Sequential(layer);
}

}  // namespace

FeaturePyramidImpl::FeaturePyramidImpl(const std::vector<int64_t>& in_channels,
                                       int64_t out_channels) {
  auto inner_blocks = register_module("inner_blocks", torch::nn::ModuleList());
  auto layer_blocks = register_module("layer_blocks", torch::nn::ModuleList());
  for (const int64_t channels : in_channels) {
    inner_blocks_.push_back(block(channels, out_channels, 1));
    layer_blocks_.push_back(block(out_channels, out_channels, 3));
    inner_blocks->push_back(inner_blocks_.back());
    layer_blocks->push_back(layer_blocks_.back());
  }
}

std::vector<torch::Tensor> FeaturePyramidImpl::forward(const std::vector<torch::Tensor>& maps) {
  std::vector<torch::Tensor> out(maps.size());
  torch::Tensor coarser;
  for (size_t i = maps.size(); i-- > 0;) {
    auto inner = inner_blocks_[i]->forward(maps[i]);
    if (coarser.defined()) {
      inner.add_(F::interpolate(coarser, F::InterpolateFuncOptions()
                                             .size({{inner.size(2), inner.size(3)}})
                                             .mode(torch::kNearest)));
    }
    out[i] = layer_blocks_[i]->forward(inner);
    coarser = inner;
  }
  out.push_back(torch::max_pool2d(out.back(), /*kernel_size=*/1, /*stride=*/2));
  return out;
}

ResNetFpnBackboneImpl::ResNetFpnBackboneImpl(const ResNetOptions& options, int64_t out_channels)
    : out_channels_(out_channels), body_(options), fpn_(body_->stage_channels(), out_channels) {
  TILEWRIGHT_CHECK("ResNetFpnBackbone", !options.dilate_last_stage(),
                   "dilate_last_stage must be false: each level of a pyramid has twice the stride "
                   "of the one before");
  register_module("body", body_);
  register_module("fpn", fpn_);
}

std::vector<torch::Tensor> ResNetFpnBackboneImpl::forward(const torch::Tensor& images) {
  return fpn_(body_(images));
}

}  // namespace tilewright
