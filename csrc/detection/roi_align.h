// RoIAlign for C++ users: pools each box of a feature map into a fixed grid of bins, each the
// average of bilinear samples (Mask R-CNN, arXiv:1703.06870).
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// input:          (N, C, H, W), float64, float32, float16 or bfloat16; contiguous or channels last
//                 (the result has the same layout; any other layout is copied).
// rois:           (K, 5): index of the image, x1, y1, x2, y2 in image coordinates; input's dtype or
//                 float32.
// spatial_scale:  pixels of the feature map per pixel of the image.
// sampling_ratio: samples per bin and axis, at most 1024; <= 0 takes one per pixel of the map.
// aligned:        shift by half a pixel, so that pixel centres lie at integers; boxes may then be
//                 smaller than one pixel. False is the rule of torchvision's detectors, which
//                 widens boxes to one pixel.
// Returns (K, C, pooled_height, pooled_width) of input's dtype. Differentiable in input, twice.
//
// Samples more than one pixel outside of the map, and boxes with NaN or infinite coordinates, give
// 0. An image index out of range is an error on the CPU, and gives 0 on CUDA.
TILEWRIGHT_API at::Tensor roi_align(const at::Tensor& input, const at::Tensor& rois,
                                    double spatial_scale, int64_t pooled_height,
                                    int64_t pooled_width, int64_t sampling_ratio = -1,
                                    bool aligned = false);

}  // namespace tilewright
