// The parts of Faster R-CNN, put together.
#include "tilewright/models/faster_rcnn.h"

#include "tilewright/models/feature_pyramid.h"
#include "tilewright/models/resnet_backbone.h"
#include "tilewright/models/roi_heads.h"

namespace tilewright {
namespace {

const FasterRCNNOptions& checked(const FasterRCNNOptions& options) {
  check_options(options);
  return options;
}

const FasterRCNNOptions& checked_beside_backbone(const FasterRCNNOptions& options) {
  check_own_backbone(checked(options));
  return options;
}

std::shared_ptr<DetectionBackboneImpl> default_backbone(const FasterRCNNOptions& options) {
  const int64_t level = options.feature_level();
  const auto resnet = resnet_options(options).stages(level == 0 ? 4 : level);
  if (level > 0) return std::make_shared<ResNetBackboneImpl>(resnet);
  return std::make_shared<ResNetFpnBackboneImpl>(resnet, options.fpn_channels());
}

}  // namespace

FasterRCNNImpl::FasterRCNNImpl(const FasterRCNNOptions& options)
    : FasterRCNNImpl(options, default_backbone(checked(options))) {}

FasterRCNNImpl::FasterRCNNImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                               const FasterRCNNOptions& options)
    : FasterRCNNImpl(checked_beside_backbone(options), backbone) {}

FasterRCNNImpl::FasterRCNNImpl(const FasterRCNNOptions& checked,
                               const std::shared_ptr<DetectionBackboneImpl>& backbone)
    : TwoStageDetectorImpl(backbone, checked), options_(checked) {
  add_roi_heads(
      std::make_shared<RoIHeadsImpl>(backbone->out_channels(), backbone->roi_strides(), options_));
}

}  // namespace tilewright
