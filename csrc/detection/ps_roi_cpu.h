// What the CPU kernel of ps_roi_align and ps_roi_pool is called with: raw pointers, sizes, one
// geometry.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/detection/ps_roi_math.h"

namespace tilewright {

struct PsRoiCpuParams {
  c10::ScalarType dtype;
  bool channels_last;  // of map and pooled alike
  const void* rois;    // (K, 5), in the accumulation type of dtype
  int64_t num_rois, batch, channels, height, width;
  PsRoiGeometry geometry;
  double spatial_scale;
  void* map;     // (N, C, H, W), or (N, H, W, C) where channels_last
  void* pooled;  // (K, C / bins, PH, PW), or (K, PH, PW, C / bins) where channels_last
};

// A piece is an image and a run of so many channels, and sees all of the image's boxes in order: no
// two pieces write to one place, and the sums do not depend on how the pieces are spread over
// threads.
constexpr int64_t kPsRoiPieceChannels = 64;

TILEWRIGHT_CPU_KERNEL(ps_roi_forward, void(const PsRoiCpuParams&, int64_t begin, int64_t end))
// Fills the map.
TILEWRIGHT_CPU_KERNEL(ps_roi_backward, void(const PsRoiCpuParams&, int64_t begin, int64_t end))

}  // namespace tilewright
