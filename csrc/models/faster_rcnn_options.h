// Every setting of Faster R-CNN, under torchvision's names and with its defaults.
#pragma once
#include "tilewright/models/detector_options.h"

namespace tilewright {

// Use it like other LibTorch options: FasterRCNNOptions(21).min_size(600).box_nms_thresh(0.4).
struct TILEWRIGHT_API FasterRCNNOptions : ChainedOptions<FasterRCNNOptions> {
  // num_classes counts the background, which is class 0.
  FasterRCNNOptions(int64_t num_classes)  // NOLINT(runtime/explicit)
      : ChainedOptions("FasterRCNN", num_classes) {}

  // 0: a feature pyramid of fpn_channels over all stages. 1 to 4: the map of this stage alone, of
  // stride 4, 8, 16 or 32 (16 where dilated); anchor_sizes is one list then.
  TORCH_ARG(int64_t, feature_level) = 0;
  TORCH_ARG(int64_t, fpn_channels) = 256;

  // Width of the box head.
  TORCH_ARG(int64_t, representation_size) = 1024;

  // The bins that a box is pooled into move, as linear layers of representation_size say
  // (deformable RoI pooling, arXiv:1703.06211).
  TORCH_ARG(bool, deformable_pooling) = false;
};

// Calls visit(name, value) for each of them but num_classes.
template <class Visit>
void for_each_option(FasterRCNNOptions& options, Visit&& visit) {
  for_each_option(static_cast<DetectorOptions&>(options), visit);
  visit("feature_level", options.feature_level());
  visit("fpn_channels", options.fpn_channels());
  visit("representation_size", options.representation_size());
  visit("deformable_pooling", options.deformable_pooling());
}

// Throws, naming the option, where a value cannot serve any backbone.
TILEWRIGHT_API void check_options(const FasterRCNNOptions& options);

}  // namespace tilewright
