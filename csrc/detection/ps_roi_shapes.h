// What ps_roi_align and ps_roi_pool share on the host: checks and allocations. Exported for the
// emulated device.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "tilewright/core/export.h"
#include "tilewright/detection/ps_roi_math.h"

namespace tilewright {

// Every argument but the tensors.
struct PsRoiArgs {
  const char* op;  // for messages
  double spatial_scale;
  PsRoiGeometry geometry;
};

// Throws unless shapes, dtypes and devices fit; looks at no data.
TILEWRIGHT_API void check_ps_roi(const PsRoiArgs& args, const at::Tensor& input,
                                 const at::Tensor& rois);
TILEWRIGHT_API void check_ps_roi_backward(const PsRoiArgs& args, const at::Tensor& grad,
                                          const at::Tensor& rois, const c10::SymInt& channels);

// (K, C / bins, PH, PW), uninitialised, in the layout of input.
TILEWRIGHT_API at::Tensor ps_roi_output(const PsRoiArgs& args, const at::Tensor& input,
                                        const at::Tensor& rois);
// (K, C / bins, PH, PW), int32, contiguous: the input channel of each output element.
TILEWRIGHT_API at::Tensor channel_mapping(const PsRoiArgs& args, const at::Tensor& input,
                                          const at::Tensor& rois);

}  // namespace tilewright
