// The loops of roi_align_rotated, compiled once per instruction set.
#include "tilewright/detection/roi_align_pieces.h"
#include "tilewright/detection/roi_align_rotated_boxes.h"

namespace tilewright {

int64_t TILEWRIGHT_ON_MACHINE(roi_align_rotated_forward_pieces)(const RoiAlignCpuParams& params) {
  return with_roi_align_cpu<RotatedBoxes>(params,
                                          [](auto&& kernel) { return kernel.forward_pieces(); });
}

void TILEWRIGHT_ON_MACHINE(roi_align_rotated_forward)(const RoiAlignCpuParams& params,
                                                      int64_t begin, int64_t end) {
  with_roi_align_cpu<RotatedBoxes>(params, [&](auto&& kernel) { kernel.forward(begin, end); });
}

int64_t TILEWRIGHT_ON_MACHINE(roi_align_rotated_backward_pieces)(const RoiAlignCpuParams& params) {
  return with_roi_align_cpu<RotatedBoxes>(params,
                                          [](auto&& kernel) { return kernel.backward_pieces(); });
}

void TILEWRIGHT_ON_MACHINE(roi_align_rotated_backward)(const RoiAlignCpuParams& params,
                                                       int64_t begin, int64_t end) {
  with_roi_align_cpu<RotatedBoxes>(params, [&](auto&& kernel) { kernel.backward(begin, end); });
}

}  // namespace tilewright
