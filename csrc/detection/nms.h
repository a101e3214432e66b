// Non-maximum suppression for C++ users: greedy, by descending score.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// boxes:  (N, 4): x1, y1, x2, y2; float64, float32, float16 or bfloat16 (16 bits: computed in
//         float32).
// scores: (N,), floating.
// iou_threshold: in [0, 1]. A box is dropped if its intersection over union with a kept box of
//         higher score (of equal scores: of lower index) is greater. Pairs without area, or with an
//         area that overflows, have no overlap. Boxes with a NaN or infinite coordinate or a NaN
//         score are dropped and suppress nothing.
// max_output: stop after so many; -1: all.
// Returns the indices of the kept boxes, int64, by descending score.
TILEWRIGHT_API at::Tensor nms(const at::Tensor& boxes, const at::Tensor& scores,
                              double iou_threshold, int64_t max_output = -1);

// The same within each class: idxs (N,), int64, is the class (or pyramid level) of each box; boxes
// of different classes do not suppress each other. Exact for all coordinates: boxes are not shifted
// apart.
TILEWRIGHT_API at::Tensor batched_nms(const at::Tensor& boxes, const at::Tensor& scores,
                                      const at::Tensor& idxs, double iou_threshold,
                                      int64_t max_output = -1);

}  // namespace tilewright
