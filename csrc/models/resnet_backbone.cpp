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
  TILEWRIGHT_CHECK("ResNetC4C5Backbone", options.stages() >= 2, "needs at least 2 stages, got ",
                   options.stages());
}

std::vector<torch::Tensor> ResNetC4C5BackboneImpl::forward(const torch::Tensor& images) {
  const auto maps = body_(images);
  return {maps[maps.size() - 2], maps.back()};
}

}  // namespace tilewright
