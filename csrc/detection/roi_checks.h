// What every RoI pooling operator checks of its arguments, makes of its boxes, and allocates for
// its gradient. Exported for the emulated device.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

TILEWRIGHT_API void check_pooled_size(const char* op, int64_t pooled_height, int64_t pooled_width);
TILEWRIGHT_API void check_spatial_scale(const char* op, double spatial_scale);
TILEWRIGHT_API void check_sampling_ratio(const char* op, int64_t sampling_ratio,
                                         const char* name = "sampling_ratio");
// (K, 5), or rotated (K, 6); float32 or of the features' dtype, on their device.
TILEWRIGHT_API void check_rois(const char* op, const at::Tensor& features, const at::Tensor& rois,
                               bool rotated = false);
// What a backward pass is given: `grad` must be what pooling `rois` over so many channels gave.
TILEWRIGHT_API void check_pooled_grad(const char* op, const at::Tensor& grad,
                                      const at::Tensor& rois, const c10::SymInt& channels,
                                      int64_t pooled_height, int64_t pooled_width,
                                      bool rotated = false);
// The gradient of the pooled map, uninitialised, in the layout of `grad`.
TILEWRIGHT_API at::Tensor empty_grad_input(const at::Tensor& grad, const c10::SymInt& batch,
                                           const c10::SymInt& channels, const c10::SymInt& height,
                                           const c10::SymInt& width);
// rois in the type that sums are kept in, contiguous.
TILEWRIGHT_API at::Tensor accumulate_type_rois(const at::Tensor& rois, at::ScalarType features);
// Throws where an image index is not in [0, batch). Only data can tell; on the CPU a look is free.
// `rois` as accumulate_type_rois made them.
void check_image_indices(const char* op, const at::Tensor& rois, int64_t batch);

}  // namespace tilewright
