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

std::shared_ptr<DetectionBackboneImpl> default_backbone(const FasterRCNNOptions& options) {
  const int64_t level = options.feature_level();
  const auto resnet = resnet_options(options).stages(level == 0 ? 4 : level);
  if (level > 0) return std::make_shared<ResNetBackboneImpl>(resnet);
  return std::make_shared<ResNetFpnBackboneImpl>(resnet, options.fpn_channels());
}

}  // namespace

FasterRCNNImpl::FasterRCNNImpl(const FasterRCNNOptions& options)
    : FasterRCNNImpl(default_backbone(checked(options)), options) {}

FasterRCNNImpl::FasterRCNNImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                               const FasterRCNNOptions& options)
    : TwoStageDetectorImpl(backbone, checked(options)), options_(options) {
  add_roi_heads(
      std::make_shared<RoIHeadsImpl>(backbone->out_channels(), backbone->roi_strides(), options));
}

}  // namespace tilewright
