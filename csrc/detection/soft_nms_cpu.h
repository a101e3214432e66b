// What the CPU kernels of Soft-NMS are called with.
#pragma once
#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/detection/soft_nms_math.h"

namespace tilewright {

// The boxes in play as arrays: x1, y1, x2, y2, area. They and the scores are padded to whole
// registers of any machine by boxes that are out.
template <class T>
struct SoftNmsCpuParams {
  T* boxes[5];
  T* scores;
  SoftNmsRule<T> rule;
};
constexpr int64_t kSoftNmsPadding = 16;

template <class T>
struct SoftNmsCpuKernels {
  // Lowers the scores [begin, end), multiples of the padding, by their overlap with the box `taken`
  // (x1, y1, x2, y2, area), and returns the highest that is left.
  T (*decay)(const SoftNmsCpuParams<T>&, const T* taken, int64_t begin, int64_t end);
  // The highest score as it is.
  T (*highest)(const SoftNmsCpuParams<T>&, int64_t begin, int64_t end);
};
TILEWRIGHT_CPU_KERNEL(soft_nms_kernels_float, SoftNmsCpuKernels<float>())
TILEWRIGHT_CPU_KERNEL(soft_nms_kernels_double, SoftNmsCpuKernels<double>())

// First all weights and gradients of the scores, then, in another call, those of the boxes.
TILEWRIGHT_CPU_KERNEL(soft_nms_grad_scores_float,
                      void(const SoftNmsGradParams<float>&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(soft_nms_grad_scores_double,
                      void(const SoftNmsGradParams<double>&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(soft_nms_grad_boxes_float,
                      void(const SoftNmsGradParams<float>&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(soft_nms_grad_boxes_double,
                      void(const SoftNmsGradParams<double>&, int64_t begin, int64_t end))

}  // namespace tilewright
