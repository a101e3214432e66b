// Deformable convolution composed of ATen operators, with its columns: the second derivatives of
// deform_conv2d are autograd's of this.
#pragma once
#include "tilewright/deform/deform_args.h"

namespace tilewright {

// The gradients as functions of all tensors that autograd can differentiate again; undefined where
// they are not needed. mask and bias may be undefined.
DeformConvGrads deform_conv_composite_backward(const DeformConvArgs& args, const at::Tensor& grad,
                                               const at::Tensor& input, const at::Tensor& weight,
                                               const at::Tensor& offset, const at::Tensor& mask,
                                               const at::Tensor& bias,
                                               const DeformConvNeeds& needs);

}  // namespace tilewright
