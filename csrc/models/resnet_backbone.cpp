// The ResNet of one map.
#include "tilewright/models/resnet_backbone.h"

namespace tilewright {

ResNetBackboneImpl::ResNetBackboneImpl(const ResNetOptions& options)
    : body_(register_module("body", ResNet(options))) {}

std::vector<torch::Tensor> ResNetBackboneImpl::forward(const torch::Tensor& images) {
  return {body_(images).back()};
}

std::vector<int64_t> ResNetBackboneImpl::roi_strides() const {
  constexpr int64_t kFirstStride = 4;  // each stage after the first halves the map
  return {kFirstStride << (body_->stage_channels().size() - 1)};
}

}  // namespace tilewright
