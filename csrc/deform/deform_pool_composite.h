// Deformable RoI pooling's first derivatives as functions that autograd can differentiate again.
#pragma once
#include "tilewright/deform/deform_pool_args.h"

namespace tilewright {

DeformPoolGrads deform_pool_composite_backward(const DeformPoolArgs& args, const at::Tensor& grad,
                                               const at::Tensor& input, const at::Tensor& rois,
                                               const at::Tensor& offset,
                                               const DeformPoolNeeds& needs);

}  // namespace tilewright
