// What every RoI pooling operator checks of its arguments and makes of its boxes. Exported for the
// emulated device.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

TILEWRIGHT_API void check_pooled_size(const char* op, int64_t pooled_height, int64_t pooled_width);
TILEWRIGHT_API void check_spatial_scale(const char* op, double spatial_scale);
TILEWRIGHT_API void check_sampling_ratio(const char* op, int64_t sampling_ratio);
// (K, 5), or rotated (K, 6); float32 or of the features' dtype, on their device.
TILEWRIGHT_API void check_rois(const char* op, const at::Tensor& features, const at::Tensor& rois,
                               bool rotated = false);
// rois in the type that sums are kept in, contiguous.
TILEWRIGHT_API at::Tensor accumulate_type_rois(const at::Tensor& rois, at::ScalarType features);
// Throws where an image index is not in [0, batch). Only data can tell; on the CPU a look is free.
// `rois` as accumulate_type_rois made them.
void check_image_indices(const char* op, const at::Tensor& rois, int64_t batch);

}  // namespace tilewright
