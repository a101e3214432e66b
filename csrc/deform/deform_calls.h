// The operators of the room as C++ functions that enter the dispatcher, with sizes that may be
// symbolic: what the front, and others that stand above it, call.
#pragma once
#include "tilewright/deform/deform_args.h"

namespace tilewright {

at::Tensor call_deform_conv2d(const at::Tensor& input, const at::Tensor& weight,
                              const at::Tensor& offset, const std::optional<at::Tensor>& mask,
                              const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
                              c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                              c10::SymInt groups, c10::SymInt offset_groups);

// Gradients of input, weight, offset, mask and bias; of no elements where they are not needed.
DeformConvGrads call_deform_conv2d_backward(const at::Tensor& grad, const at::Tensor& input,
                                            const at::Tensor& weight, const at::Tensor& offset,
                                            const std::optional<at::Tensor>& mask,
                                            c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                            c10::SymIntArrayRef dilation, c10::SymInt groups,
                                            c10::SymInt offset_groups, DeformConvNeeds needs);

}  // namespace tilewright
