// Deformable RoI pooling for C++ users: RoI pooling whose every bin lies where a learnt offset
// moves it (Deformable ConvNets, arXiv:1703.06211).
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// RoIAlign (aligned) with moved bins, as mmcv has it.
//
// input:          (N, C, H, W), float64, float32, float16 or bfloat16; contiguous or channels last
//                 (the result has the same layout; any other layout is copied).
// rois:           (K, 5): index of the image, x1, y1, x2, y2 in image coordinates; input's dtype or
//                 float32.
// offset:         (K, 2, pooled_height, pooled_width), of input's dtype or float32: how far bins
//                 move to the right, then down, in `gamma` times the box's width and height. None:
//                 roi_align.
// spatial_scale:  pixels of the feature map per pixel of the image.
// sampling_ratio: samples per bin and axis, at most 1024; <= 0 takes one per pixel of the map.
// Returns (K, C, pooled_height, pooled_width) of input's dtype. Differentiable in input and offset,
// twice.
//
// Samples more than one pixel outside of the map give 0, as do bins whose offset is NaN or infinite
// and boxes with such a coordinate; these get no gradient. An image index out of range is an error
// on the CPU, and gives 0 on CUDA.
TILEWRIGHT_API at::Tensor deform_roi_pool(const at::Tensor& input, const at::Tensor& rois,
                                          const std::optional<at::Tensor>& offset,
                                          double spatial_scale, int64_t pooled_height,
                                          int64_t pooled_width, int64_t sampling_ratio = -1,
                                          double gamma = 0.1);

// The same over a feature pyramid: each box from the level that fits its size, as
// multiscale_roi_align (<tilewright/detection/multiscale_roi_align.h>) has it. offset: as above, or
// none: multiscale_roi_align, aligned.
TILEWRIGHT_API at::Tensor multiscale_deform_roi_pool(
    at::TensorList features, const at::Tensor& rois, const std::optional<at::Tensor>& offset,
    at::ArrayRef<double> spatial_scales, int64_t pooled_height, int64_t pooled_width,
    int64_t sampling_ratio = -1, double gamma = 0.1, int64_t canonical_scale = 224,
    int64_t canonical_level = 4);

// Position-sensitive RoI pooling with moved bins, as Deformable R-FCN has it: corners are rounded
// and shifted by half a pixel, a box is at least 0.1 pixels wide, sample i of a bin lies i /
// sample_per_part from its corner, and a bin is the mean of its samples on the map.
//
// input:           (N, output_dim * group_size^2, H, W), as above. Bin (i, j) of output c reads
//                  channel (c * group_size + i * group_size / pooled_size) * group_size + j *
//                  group_size / pooled_size, divisions rounding down.
// rois:            as above.
// offset:          (K, 2 * classes, part_size, part_size), as above, in `trans_std` times the box's
//                  size; classes divides output_dim, and runs of output_dim / classes channels move
//                  together. Bin (i, j) moves as part (i * part_size / pooled_size, j * ...) says.
//                  None: nothing moves.
// sample_per_part: samples per bin and axis, from 1 to 1024.
// Returns (K, output_dim, pooled_size, pooled_size) of input's dtype. Differentiable in input and
// offset, twice.
//
// A sample more than half a pixel outside of the map is no part of the mean; a bin without samples
// gives 0.
TILEWRIGHT_API at::Tensor deform_ps_roi_pool(const at::Tensor& input, const at::Tensor& rois,
                                             const std::optional<at::Tensor>& offset,
                                             double spatial_scale, int64_t output_dim,
                                             int64_t group_size, int64_t pooled_size,
                                             int64_t part_size, int64_t sample_per_part = 4,
                                             double trans_std = 0.1);

}  // namespace tilewright
