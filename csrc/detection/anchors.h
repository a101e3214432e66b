// The anchor boxes of a region proposal network, and the layout of its predictions beside them.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include "tilewright/core/export.h"

namespace tilewright {

// Anchors of all levels of a feature pyramid, for one padded image batch.
//   features: L maps (..., H_l, W_l); only their shapes, device and dtype are looked at.
//   sizes: L * S side lengths in pixels, level after level; aspect_ratios: L * R ratios height /
//   width. image_height, image_width: of the batch that the features come from. Returns (sum_l H_l
//   * W_l * A, 4) with A = R * S, in float32, or float64 for float64 features.
// Order: level, row, column, ratio, size. An anchor is centred on (column, row) * stride with
// stride = image // map (no half-stride shift); its base corners are rounded half to even.
// These are torchvision's anchors (Ren et al. 2015, arXiv:1506.01497, section 3.1).
TILEWRIGHT_API at::Tensor grid_anchors(at::TensorList features, at::ArrayRef<double> sizes,
                                       at::ArrayRef<double> aspect_ratios, c10::SymInt image_height,
                                       c10::SymInt image_width);

// Predictions of all levels in the order of grid_anchors.
//   levels: L maps (B, A * channels, H_l, W_l), anchor-major channels (the same A everywhere).
//   Returns (B, sum_l H_l * W_l * A, channels).
TILEWRIGHT_API at::Tensor flatten_predictions(at::TensorList levels, int64_t channels);

}  // namespace tilewright
