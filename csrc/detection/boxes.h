// Geometry of axis-aligned boxes that detectors share: areas, overlaps, clipping, scaling, RoI
// rows.
//
// A box is (x1, y1, x2, y2) in pixels, continuous coordinates, no "+1" anywhere. These functions
// are registered operators: Python (torch.ops.tilewright.*), TorchScript and C++ run the same code,
// and autograd follows through it. Boxes in 16 bits are computed, and results returned, in float32.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include "tilewright/core/export.h"

namespace tilewright {

// Area of each box, (x2 - x1) * (y2 - y1): plain arithmetic, so an inverted box has a signed area
// and a NaN stays NaN.
//   boxes: (..., 4), floating or integer.  Returns (...); integers give int64.
TILEWRIGHT_API at::Tensor box_area(const at::Tensor& boxes);  // (...)

// Intersection over union of every pair (Jaccard index).
//   boxes1: (..., N, 4), boxes2: (..., M, 4), leading dimensions broadcast.
//   Returns (..., N, M), float32 or float64.
// A pair whose union has no positive area is 0, and a box with a NaN or infinite coordinate, or one
// beyond 4e18 (float64: 3e153), whose areas could overflow, counts as empty: its row is 0 and no
// gradient reaches it.
TILEWRIGHT_API at::Tensor box_iou(const at::Tensor& boxes1, const at::Tensor& boxes2);

// Generalized IoU of every pair: IoU - (hull - union) / hull, in (-1, 1]
// (Rezatofighi et al. 2019, arXiv:1902.09630). Shapes and rules as box_iou; a pair whose union or
// hull has no positive area is 0 with gradient 0.
TILEWRIGHT_API at::Tensor generalized_box_iou(const at::Tensor& boxes1, const at::Tensor& boxes2);

// Boxes moved into [0, width] x [0, height]. boxes: (..., 4), the dtype stays. An infinite
// coordinate lands on the border, a NaN stays NaN.
TILEWRIGHT_API at::Tensor clip_boxes(const at::Tensor& boxes, c10::SymInt height,
                                     c10::SymInt width);

// Boxes of an image that was resized, carried from `original_size` to `new_size` (height, width).
//   boxes: (..., 4) floating. The ratio is rounded to float32 for boxes up to 32 bits.
TILEWRIGHT_API at::Tensor resize_boxes(const at::Tensor& boxes, at::IntArrayRef original_size,
                                       at::IntArrayRef new_size);

// RoI rows of a batch: boxes[i] is (n_i, 4); returns (sum n_i, 5) with the image's index in front,
// which is what the RoI pooling operators take; float32 for 16-bit boxes, which hold no index above
// 256 or 2048.
TILEWRIGHT_API at::Tensor boxes_to_rois(at::TensorList boxes);

}  // namespace tilewright
