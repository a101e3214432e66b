// What R-FCN's own options may be.
#include "tilewright/models/rfcn_options.h"

#include "tilewright/core/check.h"

namespace tilewright {

void check_options(const RFCNOptions& options) {
  check_shared_options(options);
  const int64_t level = options.feature_level();
  TILEWRIGHT_CHECK(options.model(), level >= 2 && level <= 4,
                   "feature_level must be a stage from 2 to 4, got ", level);
  check_positive(options, "head_channels", options.head_channels());
  check_positive(options, "pooled_size", options.pooled_size());
  TILEWRIGHT_CHECK(options.model(),
                   options.pooling() == "ps_roi_align" || options.pooling() == "ps_roi_pool" ||
                       options.pooling() == "deform_ps_roi_pool",
                   "pooling must be ps_roi_align, ps_roi_pool or deform_ps_roi_pool, got ",
                   options.pooling());
  constexpr int64_t kMostSamples = 1024;  // ps_roi_align's
  TILEWRIGHT_CHECK(options.model(), options.sampling_ratio() <= kMostSamples,
                   "sampling_ratio must be at most ", kMostSamples, ", got ",
                   options.sampling_ratio());
  TILEWRIGHT_CHECK(
      options.model(), options.pooling() != "deform_ps_roi_pool" || options.sampling_ratio() > 0,
      "sampling_ratio must be positive with deform_ps_roi_pool, got ", options.sampling_ratio());
}

}  // namespace tilewright
