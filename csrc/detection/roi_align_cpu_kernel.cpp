// The loops of roi_align, compiled once per instruction set.
#include "tilewright/detection/roi_align_pieces.h"
#include "tilewright/detection/roi_align_upright.h"

namespace tilewright {

int64_t TILEWRIGHT_ON_MACHINE(roi_align_forward_pieces)(const RoiAlignCpuParams& params) {
  return with_roi_align_cpu<UprightBoxes>(params,
                                          [](auto&& kernel) { return kernel.forward_pieces(); });
}

void TILEWRIGHT_ON_MACHINE(roi_align_forward)(const RoiAlignCpuParams& params, int64_t begin,
                                              int64_t end) {
  with_roi_align_cpu<UprightBoxes>(params, [&](auto&& kernel) { kernel.forward(begin, end); });
}

int64_t TILEWRIGHT_ON_MACHINE(roi_align_backward_pieces)(const RoiAlignCpuParams& params) {
  return with_roi_align_cpu<UprightBoxes>(params,
                                          [](auto&& kernel) { return kernel.backward_pieces(); });
}

void TILEWRIGHT_ON_MACHINE(roi_align_backward)(const RoiAlignCpuParams& params, int64_t begin,
                                               int64_t end) {
  with_roi_align_cpu<UprightBoxes>(params, [&](auto&& kernel) { kernel.backward(begin, end); });
}

}  // namespace tilewright
