// NMS on CUDA.
#include "tilewright/detection/nms_cuda.h"

namespace tilewright {
namespace {

at::Tensor keep_boxes(const at::Tensor& boxes, const at::Tensor& scores,
                      const std::optional<at::Tensor>& idxs, double iou_threshold,
                      int64_t max_output) {
  const DeviceGuard guard(boxes);
  const NmsSorted sorted = nms_sort(boxes, scores, idxs);
  const at::Tensor keep = sorted.boxes.scalar_type() == at::kDouble
                              ? nms_keep<UprightShape<double>>(sorted, iou_threshold)
                              : nms_keep<UprightShape<float>>(sorted, iou_threshold);
  return nms_kept(sorted, keep, max_output);
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { NmsKernels<keep_boxes>::add_to(m); }

}  // namespace tilewright
