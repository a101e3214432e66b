// The next loss scale, on the device where it lies (arXiv:1710.03740, section 3.2).
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// scale: one float32. growth_tracker: one int32, the clean steps since the scale last changed.
// found_inf: one float32, not 0 where a gradient was inf or NaN.
//   A clean step counts; the growth_interval-th multiplies the scale by growth_factor, up to
//   max_scale, unless it would be infinite, and counting begins again.
//   After another one counting begins again, and the scale is multiplied by backoff_factor, down to
//   min_scale. With hysteresis H that needs H such steps in a row, which hysteresis_tracker (one
//   int32, H at first) counts down; a clean step sets it to H.
// Errors: factors that are not positive and finite, an interval or a hysteresis below 1, a floor
// that is negative or above the ceiling, a hysteresis above 1 without its tracker.
TILEWRIGHT_API void update_scale_(const at::Tensor& scale, const at::Tensor& growth_tracker,
                                  const at::Tensor& found_inf, double growth_factor,
                                  double backoff_factor, int64_t growth_interval,
                                  double min_scale = 0.0,
                                  std::optional<double> max_scale = std::nullopt,
                                  const std::optional<at::Tensor>& hysteresis_tracker = {},
                                  int64_t hysteresis = 1);

}  // namespace tilewright
