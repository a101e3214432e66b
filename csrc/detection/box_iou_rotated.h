// The overlap of rotated boxes for C++ users.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// Intersection over union of every pair of rotated boxes.
//   boxes1: (..., N, 5), boxes2: (..., M, 5): cx, cy, w, h, angle, floating or integer; leading
//   dimensions broadcast. The angle is in radians and counter-clockwise as seen on the screen.
//   Returns (..., N, M), float32 (float64 for float64), computed in float64.
// A pair whose union has no positive area is 0, and a box with a NaN or infinite value or one
// beyond 1e75, or without a positive width and height, counts as empty: its row is 0 and no
// gradient reaches it. Differentiable in both.
TILEWRIGHT_API at::Tensor box_iou_rotated(const at::Tensor& boxes1, const at::Tensor& boxes2);

}  // namespace tilewright
