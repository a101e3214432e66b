// Position-sensitive RoIAlign for C++ users: RoIAlign in which every bin has channels of its own
// (R-FCN, arXiv:1605.06409, with the samples of Mask R-CNN, arXiv:1703.06870).
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// input:          (N, C, H, W), float64, float32, float16 or bfloat16, with C a multiple of
//                 pooled_height * pooled_width; contiguous or channels last (the result has the
//                 same layout; any other layout is copied).
// rois:           (K, 5): index of the image, x1, y1, x2, y2 in image coordinates; input's dtype or
//                 float32. They are shifted by half a pixel, so that pixel centres lie at integers.
// spatial_scale:  pixels of the feature map per pixel of the image.
// sampling_ratio: samples per bin and axis, at most 1024; <= 0 takes one per pixel of the map.
// Returns         output (K, C / bins, pooled_height, pooled_width) of input's dtype,
//                 differentiable in input, twice, and channel_mapping, int32 of the same shape: the
//                 input channel (c * pooled_height + ph) * pooled_width + pw of each element.
//
// Samples more than one pixel outside of the map, bins without samples, and boxes with NaN or
// infinite coordinates give 0. An image index out of range is an error on the CPU, and gives 0 on
// CUDA.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> ps_roi_align(
    const at::Tensor& input, const at::Tensor& rois, double spatial_scale, int64_t pooled_height,
    int64_t pooled_width, int64_t sampling_ratio = -1);

}  // namespace tilewright
