// NMS of rotated boxes on CUDA.
#include <ATen/ops/cat.h>

#include "tilewright/detection/nms_cuda.h"
#include "tilewright/detection/nms_rotated_kernel.cuh"

namespace tilewright {
namespace {

at::Tensor keep_rotated_boxes(const at::Tensor& boxes, const at::Tensor& scores,
                              const std::optional<at::Tensor>& idxs, double iou_threshold,
                              int64_t max_output) {
  const DeviceGuard guard(boxes);
  NmsSorted sorted = nms_sort(boxes.to(at::kDouble), scores, idxs);
  // The cosine and the sine in place of the angle: on a GPU their general case takes local memory.
  const at::Tensor angle = sorted.boxes.slice(1, 4);
  sorted.boxes = at::cat({sorted.boxes.slice(1, 0, 4), angle.cos(), angle.sin()}, 1);
  return nms_kept(sorted, nms_keep<RotatedShape>(sorted, iou_threshold), max_output);
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { NmsKernels<keep_rotated_boxes, /*kRotated=*/true>::add_to(m); }

}  // namespace tilewright
