// What both machines check for update_scale_.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// The numbers of the operator, as given.
struct UpdateScaleArgs {
  double growth_factor, backoff_factor;
  int64_t growth_interval;
  double min_scale;
  std::optional<double> max_scale;
  int64_t hysteresis;
};

TILEWRIGHT_API void check_update_scale(const UpdateScaleArgs& args, const at::Tensor& scale,
                                       const at::Tensor& growth_tracker,
                                       const at::Tensor& found_inf,
                                       const std::optional<at::Tensor>& hysteresis_tracker);

// ScaleRule of the machine that includes update_scale_math.h.
template <class Rule>
Rule scale_rule(const UpdateScaleArgs& args) {
  return {args.growth_factor,
          args.backoff_factor,
          args.growth_interval,
          float(args.min_scale),
          float(args.max_scale.value_or(std::numeric_limits<double>::infinity())),
          int32_t(args.hysteresis)};
}

}  // namespace tilewright
