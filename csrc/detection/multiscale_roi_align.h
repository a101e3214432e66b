// RoIAlign over a feature pyramid for C++ users: each box is pooled from the level that fits its
// size (Feature Pyramid Networks, arXiv:1612.03144, equation 1), in one operator, without sorting
// boxes by level on the host.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/TensorBody.h>

#include "tilewright/core/export.h"

namespace tilewright {

// features: 1 to 16 maps (N, C, H_l, W_l), finest first, of one dtype and device.
// rois:     (K, 5) as for roi_align.
// spatial_scales: one per map; each half of the one before.
// A box of side s = sqrt(area) is pooled from level
//   floor(canonical_level + log2(s / canonical_scale) + 1e-6),
// where level l has scale 2^-l; outside of the pyramid from its nearest level, and without a
// positive area from the first. Returns (K, C, pooled_height, pooled_width). Differentiable in
// features, twice.
TILEWRIGHT_API at::Tensor multiscale_roi_align(at::TensorList features, const at::Tensor& rois,
                                               at::ArrayRef<double> spatial_scales,
                                               int64_t pooled_height, int64_t pooled_width,
                                               int64_t sampling_ratio = 2, bool aligned = false,
                                               int64_t canonical_scale = 224,
                                               int64_t canonical_level = 4);

}  // namespace tilewright
