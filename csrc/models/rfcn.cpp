// The parts of R-FCN, put together.
#include "tilewright/models/rfcn.h"

#include "tilewright/core/check.h"
#include "tilewright/models/position_sensitive_heads.h"
#include "tilewright/models/resnet_backbone.h"

namespace tilewright {
namespace {

const RFCNOptions& checked(const RFCNOptions& options) {
  check_options(options);
  return options;
}

const RFCNOptions& checked_beside_backbone(const RFCNOptions& options) {
  check_own_backbone(checked(options));
  return options;
}

}  // namespace

RFCNImpl::RFCNImpl(const RFCNOptions& options)
    : RFCNImpl(options, std::make_shared<ResNetC4C5BackboneImpl>(
                            resnet_options(checked(options)).stages(options.feature_level()))) {}

RFCNImpl::RFCNImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                   const RFCNOptions& options)
    : RFCNImpl(checked_beside_backbone(options), backbone) {}

RFCNImpl::RFCNImpl(const RFCNOptions& checked,
                   const std::shared_ptr<DetectionBackboneImpl>& backbone)
    : TwoStageDetectorImpl(backbone, checked), options_(checked) {
  const auto strides = backbone->roi_strides();
  TILEWRIGHT_CHECK(checked.model(), backbone->num_levels() == 1 && strides.size() == 1,
                   "backbone must have one level and one stride, got ", backbone->num_levels(),
                   " and ", strides.size());
  add_roi_heads(std::make_shared<PositionSensitiveHeadsImpl>(backbone->last_channels(), strides[0],
                                                             options_));
}

}  // namespace tilewright
