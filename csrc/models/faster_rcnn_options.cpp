// What Faster R-CNN's own options may be.
#include "tilewright/models/faster_rcnn_options.h"

#include "tilewright/core/check.h"

namespace tilewright {

void check_options(const FasterRCNNOptions& options) {
  check_shared_options(options);
  const int64_t level = options.feature_level();
  TILEWRIGHT_CHECK(options.model(), level >= 0 && level <= 4,
                   "feature_level must be 0 (a pyramid) or a stage from 1 to 4, got ", level);
  TILEWRIGHT_CHECK(options.model(), !options.dilate_last_stage() || level == 4,
                   "dilate_last_stage needs feature_level=4, got ", level);
  check_positive(options, "fpn_channels", options.fpn_channels());
  check_positive(options, "representation_size", options.representation_size());
}

}  // namespace tilewright
