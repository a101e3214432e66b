// Position-sensitive RoIPool for C++ users: each bin is the average of the pixels of channels of
// its own (R-FCN, arXiv:1605.06409).
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// input:         (N, C, H, W), float64, float32, float16 or bfloat16, with C a multiple of
//                pooled_height * pooled_width; contiguous or channels last (the result has the same
//                layout; any other layout is copied).
// rois:          (K, 5): index of the image, x1, y1, x2, y2 in image coordinates; input's dtype or
//                float32.
// spatial_scale: pixels of the feature map per pixel of the image; the product is rounded.
// Returns        output (K, C / bins, pooled_height, pooled_width) of input's dtype, differentiable
//                in input, twice, and channel_mapping, int32 of the same shape: the input channel
//                (c * pooled_height + ph) * pooled_width + pw of each element.
//
// As in torchvision, the map's last row and column are never pooled. Empty bins, and boxes with NaN
// or infinite coordinates, give 0. An image index out of range is an error on the CPU, and gives 0
// on CUDA.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> ps_roi_pool(const at::Tensor& input,
                                                              const at::Tensor& rois,
                                                              double spatial_scale,
                                                              int64_t pooled_height,
                                                              int64_t pooled_width);

}  // namespace tilewright
