// What the CPU kernel of RoIPool is called with: raw pointers and sizes.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

struct RoiPoolCpuParams {
  c10::ScalarType dtype;
  bool channels_last;  // of map, pooled and argmax alike
  const void* rois;    // (K, 5), in the accumulation type of dtype
  int64_t num_rois, batch, channels, height, width;
  int64_t pooled_height, pooled_width;
  double spatial_scale;
  void* map;        // (N, C, H, W), or (N, H, W, C) where channels_last
  void* pooled;     // (K, C, PH, PW), or (K, PH, PW, C) where channels_last
  int32_t* argmax;  // as pooled
};

// How many pieces the forward pass is cut into; a piece is a run of boxes and a run of channels.
TILEWRIGHT_CPU_KERNEL(roi_pool_forward_pieces, int64_t(const RoiPoolCpuParams&))

// Pieces [begin, end) of the forward pass.
TILEWRIGHT_CPU_KERNEL(roi_pool_forward, void(const RoiPoolCpuParams&, int64_t begin, int64_t end))

TILEWRIGHT_CPU_KERNEL(roi_pool_backward_pieces, int64_t(const RoiPoolCpuParams&))

// Pieces [begin, end) of the backward pass, which fills the map. A piece is an image and a run of
// channels, and sees all boxes in order: no two pieces write to one place, and the sums do not
// depend on how the pieces are spread over threads.
TILEWRIGHT_CPU_KERNEL(roi_pool_backward, void(const RoiPoolCpuParams&, int64_t begin, int64_t end))

}  // namespace tilewright
