// The ResNets of one map and of two.
#include "tilewright/models/resnet_backbone.h"

#include "tilewright/core/check.h"

namespace tilewright {

ResNetBackboneImpl::ResNetBackboneImpl(const ResNetOptions& options)
    : body_(register_module("body", ResNet(options))) {}

std::vector<torch::Tensor> ResNetBackboneImpl::forward(const torch::Tensor& images) {
  return {body_(images).back()};
}

ResNetC4C5BackboneImpl::ResNetC4C5BackboneImpl(const ResNetOptions& options)
    : body_(register_module("body", ResNet(options))) {
  TILEWRIGHT_CHECK("ResNetC4C5Backbone", options.stages() == 4, "needs all 4 stages, got ",
                   options.stages());
}

std::vector<torch::Tensor> ResNetC4C5BackboneImpl::forward(const torch::Tensor& images) {
  const auto maps = body_(images);
  return {maps[2], maps[3]};
}

}  // namespace tilewright
