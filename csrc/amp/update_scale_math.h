// The rule of update_scale_, for both machines.
#pragma once
#include <cstdint>
#include <limits>

#include "tilewright/core/cuda/machine.h"
#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct ScaleRule {
  double growth_factor, backoff_factor;
  int64_t growth_interval;
  float min_scale, max_scale;  // max_scale: infinity where there is no ceiling
  int32_t hysteresis;
};

// Numbers on the machine; hysteresis may be null.
struct ScaleState {
  float* scale;
  int32_t* growth;
  const float* found_inf;
  int32_t* hysteresis;
};

TILEWRIGHT_HD void update_scale(const ScaleState& state, const ScaleRule& rule) {
  const bool bad = *state.found_inf != 0.0f;
  const double scale = *state.scale;
  if (!bad) {
    if (state.hysteresis != nullptr) *state.hysteresis = rule.hysteresis;
    const int64_t clean = int64_t(*state.growth) + 1;
    *state.growth = clean >= rule.growth_interval ? 0 : int32_t(clean);
    if (clean < rule.growth_interval) return;
    const float grown = min_of(float(scale * rule.growth_factor), rule.max_scale);
    if (grown < std::numeric_limits<float>::infinity()) *state.scale = grown;
    return;
  }
  *state.growth = 0;
  if (state.hysteresis != nullptr && --*state.hysteresis > 0) return;
  *state.scale = max_of(rule.min_scale, float(scale * rule.backoff_factor));  // of NaN the floor
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
