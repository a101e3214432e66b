// What the CPU kernel of RoIAlign is called with: raw pointers, sizes, one geometry.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/detection/roi_align_math.h"

namespace tilewright {

struct RoiAlignCpuLevel {
  void* data;  // (N, C, height, width), or (N, height, width, C) where channels_last
  int64_t height, width;
  double spatial_scale;
};

struct RoiAlignCpuParams {
  c10::ScalarType dtype;
  bool channels_last;  // of the feature maps and of `pooled` alike
  const void* rois;    // (K, 5) or rotated (K, 6), in the accumulation type of dtype
  int64_t num_rois, batch, channels;
  RoiAlignGeometry geometry;
  PyramidRule pyramid;
  RoiAlignCpuLevel levels[kMaxPyramidLevels];
  void* pooled;  // (K, C, PH, PW), or (K, PH, PW, C) where channels_last
};

// How many pieces each pass is cut into. Forward, channels last: a box each. Otherwise a piece is
// an image on a level, or a band of its rows, and a run of channels.
TILEWRIGHT_CPU_KERNEL(roi_align_forward_pieces, int64_t(const RoiAlignCpuParams&))
TILEWRIGHT_CPU_KERNEL(roi_align_backward_pieces, int64_t(const RoiAlignCpuParams&))

// Pieces [begin, end). A piece writes its whole part of the result, whatever was there; in the
// backward pass it sees all boxes in order: no two pieces write to one place, and the sums do not
// depend on how the pieces are spread over threads.
TILEWRIGHT_CPU_KERNEL(roi_align_forward, void(const RoiAlignCpuParams&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(roi_align_backward,
                      void(const RoiAlignCpuParams&, int64_t begin, int64_t end))

// The same for rotated boxes, (K, 6).
TILEWRIGHT_CPU_KERNEL(roi_align_rotated_forward_pieces, int64_t(const RoiAlignCpuParams&))
TILEWRIGHT_CPU_KERNEL(roi_align_rotated_backward_pieces, int64_t(const RoiAlignCpuParams&))
TILEWRIGHT_CPU_KERNEL(roi_align_rotated_forward,
                      void(const RoiAlignCpuParams&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(roi_align_rotated_backward,
                      void(const RoiAlignCpuParams&, int64_t begin, int64_t end))

}  // namespace tilewright
