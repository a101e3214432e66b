// What deformable RoI pooling and its backward check and allocate, whatever the device.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

#include "tilewright/core/export.h"
#include "tilewright/deform/deform_pool_math.h"

namespace tilewright {

// Of `_deform_pool`, which both public operators are made of.
struct DeformPoolArgs {
  double spatial_scale;
  std::array<int64_t, 2> pooled, parts;
  int64_t group_size, samples;
  double gamma;
  bool position_sensitive;

  // Whose argument is wrong.
  const char* op() const { return position_sensitive ? "deform_ps_roi_pool" : "deform_roi_pool"; }
};

// Of the operator's own arguments; an error where `pooled` or `parts` is no pair. The only way from
// them: nothing reads their elements before.
TILEWRIGHT_API DeformPoolArgs deform_pool_args(double spatial_scale, at::IntArrayRef pooled,
                                               at::IntArrayRef parts, int64_t group_size,
                                               int64_t samples, double gamma,
                                               bool position_sensitive);

using DeformPoolNeeds = std::array<bool, 2>;  // input, offset
using DeformPoolGrads = std::tuple<at::Tensor, at::Tensor>;

// All but what the offset is: what remains where nothing moves.
TILEWRIGHT_API void check_unmoved_pool(const DeformPoolArgs& args, const at::Tensor& input,
                                       const at::Tensor& rois);
TILEWRIGHT_API void check_deform_pool(const DeformPoolArgs& args, const at::Tensor& input,
                                      const at::Tensor& rois, const at::Tensor& offset);
TILEWRIGHT_API void check_deform_pool_backward(const DeformPoolArgs& args, const at::Tensor& grad,
                                               const at::Tensor& input, const at::Tensor& rois,
                                               const at::Tensor& offset);
// Throws on the CPU, where a look at the data is possible, unless the images that rois name are
// input's.
void check_images(const char* op, const at::Tensor& input, const at::Tensor& rois);
// (K, C / group_size^2, PH, PW) in input's layout, not initialised.
TILEWRIGHT_API at::Tensor deform_pool_output(const DeformPoolArgs& args, const at::Tensor& input,
                                             const at::Tensor& rois);
// Of no elements where they are not needed.
TILEWRIGHT_API DeformPoolGrads deform_pool_grads(const at::Tensor& input, const at::Tensor& offset,
                                                 const DeformPoolNeeds& needs);

// Of tensors that were checked, on a machine.
TILEWRIGHT_API DeformPoolShape deform_pool_shape(const DeformPoolArgs& args,
                                                 const at::Tensor& input, const at::Tensor& rois,
                                                 const at::Tensor& offset);
// Maps as the kernels read them, (N, maps, H, W, outs); a view where one map is channels last.
TILEWRIGHT_API at::Tensor deform_pool_maps(const DeformPoolShape& s, const at::Tensor& input);
// The gradient of moves by bin, (..., K, classes, 2, PH, PW), added up over the first dimension and
// over the bins of each part: (K, 2 * classes, parts).
TILEWRIGHT_API void store_grad_offset(const DeformPoolShape& s, const at::Tensor& moves,
                                      at::Tensor& grad_offset);

}  // namespace tilewright
