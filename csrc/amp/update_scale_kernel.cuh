// update_scale_ on the device.
#pragma once
#include "tilewright/amp/update_scale_math.h"
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline __global__ void update_scale_kernel(ScaleState state, ScaleRule rule) {
  update_scale(state, rule);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
