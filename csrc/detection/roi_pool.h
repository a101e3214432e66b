// RoIPool for C++ users: each box of a feature map into a fixed grid of bins, each the greatest of
// its pixels (Fast R-CNN, arXiv:1504.08083).
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// input:         (N, C, H, W), float64, float32, float16 or bfloat16; contiguous or channels last
//                (the results have the same layout; any other layout is copied). H * W < 2^31.
// rois:          (K, 5): index of the image, x1, y1, x2, y2 in image coordinates, x2 and y2 belong
//                to the box; input's dtype or float32.
// spatial_scale: pixels of the feature map per pixel of the image; the product is rounded.
// Returns        output (K, C, pooled_height, pooled_width) of input's dtype, differentiable in
//                input, and argmax, int32 of the same shape: which pixel (y * W + x) was taken, -1
//                where a bin is empty.
//
// Empty bins, and boxes with NaN or infinite coordinates, give 0. A NaN pixel wins its bin. An
// image index out of range is an error on the CPU, and gives 0 on CUDA.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> roi_pool(const at::Tensor& input,
                                                           const at::Tensor& rois,
                                                           double spatial_scale,
                                                           int64_t pooled_height,
                                                           int64_t pooled_width);

}  // namespace tilewright
