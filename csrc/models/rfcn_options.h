// Every setting of R-FCN.
#pragma once
#include <string>

#include "tilewright/models/detector_options.h"

namespace tilewright {

// Use it like other LibTorch options: RFCNOptions(21).resnet_depth(101).pooled_size(7). Unlike
// Faster R-CNN's, dilate_last_stage is true, and anchor_sizes one list of five.
struct TILEWRIGHT_API RFCNOptions : ChainedOptions<RFCNOptions> {
  // num_classes counts the background, which is class 0.
  RFCNOptions(int64_t num_classes)  // NOLINT(runtime/explicit)
      : ChainedOptions("RFCN", num_classes) {
    dilate_last_stage(true);
    anchor_sizes({{32, 64, 128, 256, 512}});
  }

  // The stage of the ResNet whose map is classified, 2 to 4; regions are proposed on that of the
  // one before. Of small scenes 3 is quicker: a map of stride 8.
  TORCH_ARG(int64_t, feature_level) = 4;
  // Channels to which a 1x1 convolution reduces the last map.
  TORCH_ARG(int64_t, head_channels) = 1024;
  // Bins per side of a box, the paper's k: there are k * k maps for each score.
  TORCH_ARG(int64_t, pooled_size) = 7;
  // "ps_roi_align", with sampling_ratio samples per bin and axis (<= 0: one per cell);
  // "ps_roi_pool", the paper's; or "deform_ps_roi_pool", whose bins move as k * k maps of two
  // offsets say (arXiv:1703.06211), with sampling_ratio samples, at least one.
  TORCH_ARG(std::string, pooling) = "ps_roi_align";
  TORCH_ARG(int64_t, sampling_ratio) = 2;
};

// Calls visit(name, value) for each of them but num_classes.
template <class Visit>
void for_each_option(RFCNOptions& options, Visit&& visit) {
  for_each_option(static_cast<DetectorOptions&>(options), visit);
  visit("feature_level", options.feature_level());
  visit("head_channels", options.head_channels());
  visit("pooled_size", options.pooled_size());
  visit("pooling", options.pooling());
  visit("sampling_ratio", options.sampling_ratio());
}

// Throws, naming the option, where a value cannot serve any backbone.
TILEWRIGHT_API void check_options(const RFCNOptions& options);

}  // namespace tilewright
