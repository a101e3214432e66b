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
  const void* rois;    // (K, 5), in the accumulation type of dtype
  int64_t num_rois, batch, channels;
  RoiAlignGeometry geometry;
  PyramidRule pyramid;
  RoiAlignCpuLevel levels[kMaxPyramidLevels];
  void* pooled;  // (K, C, PH, PW), or (K, PH, PW, C) where channels_last
};

// How many pieces the forward pass is cut into; a piece is a run of boxes and a run of channels.
TILEWRIGHT_CPU_KERNEL(roi_align_forward_pieces, int64_t(const RoiAlignCpuParams&))

// Pieces [begin, end) of the forward pass.
TILEWRIGHT_CPU_KERNEL(roi_align_forward, void(const RoiAlignCpuParams&, int64_t begin, int64_t end))

// How many channels one piece of the backward pass owns.
TILEWRIGHT_CPU_KERNEL(roi_align_backward_channels, int64_t(const RoiAlignCpuParams&, int64_t level))

// Pieces [begin, end) of the backward pass of one level, in place of its (zeroed) feature map. A
// piece is an image and a run of channels, and sees all boxes in order: no two pieces write to one
// place, and the sums do not depend on how the pieces are spread over threads.
TILEWRIGHT_CPU_KERNEL(roi_align_backward,
                      void(const RoiAlignCpuParams&, int64_t level, int64_t begin, int64_t end))

}  // namespace tilewright
