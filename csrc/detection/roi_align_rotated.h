// RoIAlign over rotated boxes, for C++ users (RRPN, arXiv:1703.01086).
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// input:          (N, C, H, W), float64, float32, float16 or bfloat16; contiguous or channels last
//                 (the result has the same layout; any other layout is copied).
// rois:           (K, 6): index of the image, centre x, centre y, width, height in image
//                 coordinates, angle; input's dtype or float32. The angle is in radians; a positive
//                 one turns the box counter-clockwise as seen in the image (y downwards), so
//                 Detectron2's boxes want degrees * pi / 180.
// spatial_scale:  pixels of the feature map per pixel of the image.
// sampling_ratio: samples per bin and axis, at most 1024; <= 0 takes one per pixel of the map.
// aligned:        shift by half a pixel, so that pixel centres lie at integers; False widens boxes
//                 to one pixel.
// Returns (K, C, pooled_height, pooled_width) of input's dtype; the bins lie along the box's own
// axes. Differentiable in input, twice.
//
// Samples more than one pixel outside of the map, and boxes with NaN or infinite numbers, give 0.
// An image index out of range is an error on the CPU, and gives 0 on CUDA.
TILEWRIGHT_API at::Tensor roi_align_rotated(const at::Tensor& input, const at::Tensor& rois,
                                            double spatial_scale, int64_t pooled_height,
                                            int64_t pooled_width, int64_t sampling_ratio = -1,
                                            bool aligned = true);

}  // namespace tilewright
