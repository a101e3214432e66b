// What RoIPool's machines share on the host: checks and allocations. Exported for the emulated
// device.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// Every argument but the tensors.
struct RoiPoolArgs {
  double spatial_scale;
  int64_t pooled_height, pooled_width;
};

// Throws unless shapes, dtypes and devices fit; looks at no data.
TILEWRIGHT_API void check_roi_pool(const RoiPoolArgs& args, const at::Tensor& input,
                                   const at::Tensor& rois);
TILEWRIGHT_API void check_roi_pool_backward(const RoiPoolArgs& args, const at::Tensor& grad,
                                            const at::Tensor& rois, const at::Tensor& argmax,
                                            const c10::SymInt& channels);
// Throws where a pixel's index does not fit argmax. Not asked of symbolic sizes: an exported
// program would be bound to small maps.
TILEWRIGHT_API void check_pixel_index(const char* op, int64_t height, int64_t width);

// (output, argmax), uninitialised, in the layout of input.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> roi_pool_outputs(const RoiPoolArgs& args,
                                                                   const at::Tensor& input,
                                                                   const at::Tensor& rois);

}  // namespace tilewright
