// What the CPU kernels of deformable RoI pooling are called with: raw pointers, sizes, and how the
// backward is cut into tasks.
#pragma once
#include <c10/core/ScalarType.h>

#include <algorithm>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/deform/deform_pool_math.h"

namespace tilewright {

// The backward: a task owns one map of one image, or a run of its channels, whose gradient it alone
// writes to; it goes over the image's boxes, and of these over the bins that read the map. Depends
// on sizes alone, and so do the sums.
struct DeformPoolTasks {
  int64_t block;   // channels of a task, within a class
  int64_t blocks;  // of a class

  static constexpr int64_t kWanted = 16, kLeastBlock = 16, kMostBlock = 64;

  TILEWRIGHT_HD explicit DeformPoolTasks(const DeformPoolShape& s) : block(kMostBlock) {
    const auto enough = [&] { return s.batch * s.maps() * s.outs / block >= kWanted; };
    while (block > kLeastBlock && !enough()) block /= 2;
    blocks = (s.class_channels() + block - 1) / block;
  }
  TILEWRIGHT_HD int64_t count(const DeformPoolShape& s) const {
    return s.batch * s.maps() * s.classes * blocks;
  }
};

// Tensors of T, and of Acc, the type that sums of T are kept in.
struct DeformPoolCpuParams {
  c10::ScalarType dtype;
  DeformPoolShape shape;
  const void *rois, *offset;  // of Acc: (K, 5), (K, classes, 2, parts)
  const void* maps;           // of T: (N, maps, H, W, outs)
  void* pooled;               // of T: (K, outs, bins), or (K, bins, outs) where pooled_last;
  bool pooled_last;           // the backward reads it, as the gradient
  void* grad_input;           // of T: (N, outs * maps, H, W), or null
  bool grad_input_last;       // (N, H, W, outs * maps)
  void* grad_moves;           // of Acc, zeros: (blocks, K, classes, 2, bins), or null
};

// Boxes [begin, end).
TILEWRIGHT_CPU_KERNEL(deform_pool_forward,
                      void(const DeformPoolCpuParams&, int64_t begin, int64_t end))
// Tasks [begin, end) of DeformPoolTasks.
TILEWRIGHT_CPU_KERNEL(deform_pool_backward,
                      void(const DeformPoolCpuParams&, int64_t begin, int64_t end))

}  // namespace tilewright
