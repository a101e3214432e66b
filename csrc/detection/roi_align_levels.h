// What roi_align, multiscale_roi_align and roi_align_rotated share on the host: they differ in the
// number of levels and in what a box is, so the checks and the way from tensors to kernel
// parameters exist once. Exported for the emulated device.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/detection/roi_align_math.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {

// Every argument but the tensors.
struct RoiAlignArgs {
  const char* op;  // for messages
  std::vector<double> scales;
  int64_t pooled_height, pooled_width, sampling_ratio;
  bool aligned;
  int64_t canonical_scale = 1, canonical_level = 0;
  bool rotated = false;  // rois are (K, 6): image, centre, size, angle

  RoiAlignGeometry geometry() const {
    return {pooled_height, pooled_width, sampling_ratio, aligned};
  }
  TILEWRIGHT_API PyramidRule pyramid() const;
};

// roi_level of each of rois (K, 5): (K,) int64.
TILEWRIGHT_API at::Tensor roi_levels(const at::Tensor& rois, const PyramidRule& rule);

// Throws unless shapes, dtypes and devices fit; looks at no data.
TILEWRIGHT_API void check_roi_align(const RoiAlignArgs& args, at::TensorList features,
                                    const at::Tensor& rois);
TILEWRIGHT_API void check_roi_align_backward(const RoiAlignArgs& args, const at::Tensor& grad,
                                             const at::Tensor& rois, const c10::SymInt& channels,
                                             c10::SymIntArrayRef heights,
                                             c10::SymIntArrayRef widths);

// Channels last if the first map is, contiguous otherwise: no copy of a map in either layout.
TILEWRIGHT_API at::MemoryFormat roi_align_layout(at::TensorList features);
TILEWRIGHT_API at::Tensor roi_align_output(const RoiAlignArgs& args, at::TensorList features,
                                           const at::Tensor& rois);
// The gradients of the maps, not yet written, in the layout of `grad`.
TILEWRIGHT_API std::vector<at::Tensor> roi_align_grad_inputs(const at::Tensor& grad,
                                                             const c10::SymInt& batch,
                                                             const c10::SymInt& channels,
                                                             c10::SymIntArrayRef heights,
                                                             c10::SymIntArrayRef widths);

}  // namespace tilewright
