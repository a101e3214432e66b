// Non-maximum suppression of rotated boxes for C++ users.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// nms and batched_nms (nms.h) for boxes (N, 5): cx, cy, w, h, angle. The angle is in radians and
// counter-clockwise as seen on the screen (y points down), as in roi_align_rotated and
// box_iou_rotated. Overlaps are computed in float64 from the areas that the rotated boxes share.
// Boxes whose w or h is not positive meet nothing and are kept; those with a NaN or infinite value
// are dropped.
TILEWRIGHT_API at::Tensor nms_rotated(const at::Tensor& boxes, const at::Tensor& scores,
                                      double iou_threshold, int64_t max_output = -1);
TILEWRIGHT_API at::Tensor batched_nms_rotated(const at::Tensor& boxes, const at::Tensor& scores,
                                              const at::Tensor& idxs, double iou_threshold,
                                              int64_t max_output = -1);

}  // namespace tilewright
