// Deformable aggregation composed of ATen operators, with all that its taps read: the second
// derivatives of deform_aggregate are autograd's of this.
#pragma once
#include "tilewright/deform/deform_aggregate_args.h"

namespace tilewright {

// The gradients as functions of all tensors that autograd can differentiate again; undefined where
// they are not needed.
DeformAggregateGrads deform_aggregate_composite_backward(
    const DeformAggregateArgs& args, const at::Tensor& grad, const at::Tensor& input,
    const at::Tensor& offset, const at::Tensor& mask, const DeformAggregateNeeds& needs);

}  // namespace tilewright
