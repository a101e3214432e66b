// The regression targets of Faster R-CNN: a box written relative to another box, and back.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>

#include "tilewright/core/export.h"

namespace tilewright {

// Widths and heights grow by at most 1000 / 16 in one decoding: log(1000 / 16).
inline constexpr double kBoxDeltaClip = 4.135166556742356;
// One weight each for (dx, dy, dw, dh): what the RPN and what the box head of Faster R-CNN use.
inline constexpr std::array<double, 4> kRpnBoxWeights{1.0, 1.0, 1.0, 1.0};
inline constexpr std::array<double, 4> kHeadBoxWeights{10.0, 10.0, 5.0, 5.0};

// The deltas that carry `proposals` to `reference` (Ren et al. 2015, arXiv:1506.01497, eq. 2):
// dx = wx * (reference centre - proposal centre) / proposal width, dw = ww * log(width ratio).
//   reference, proposals: (N, 4) pixels.  Returns (N, 4) (dx, dy, dw, dh), float32 or float64.
// Rows in which either box is degenerate (no positive width and height, or not finite) are 0 and
// get no gradient.
TILEWRIGHT_API at::Tensor encode_boxes(const at::Tensor& reference, const at::Tensor& proposals,
                                       at::ArrayRef<double> weights);

// The inverse of encode_boxes: deltas applied to boxes, with dw and dh limited to `clip` from
// above.
//   deltas: (N, 4 * K), one group of four per class; boxes: (N, 4).
//   Returns (N, 4 * K) pixels, float32 or float64. NaN in a row stays in that row.
TILEWRIGHT_API at::Tensor decode_boxes(const at::Tensor& deltas, const at::Tensor& boxes,
                                       at::ArrayRef<double> weights, double clip = kBoxDeltaClip);

}  // namespace tilewright
