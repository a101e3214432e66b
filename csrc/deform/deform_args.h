// What deform_conv2d and its backward check and allocate, whatever the device.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

#include "tilewright/core/export.h"
#include "tilewright/deform/deform_math.h"

namespace tilewright {

struct DeformConvArgs {
  const char* op;
  c10::SymIntArrayRef stride, padding, dilation;
  c10::SymInt groups, offset_groups;
};

using DeformConvNeeds = std::array<bool, 5>;  // input, weight, offset, mask, bias
using DeformConvGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// An error where shapes, dtypes or devices do not fit; mask and bias may be undefined.
TILEWRIGHT_API void check_deform_conv(const DeformConvArgs& args, const at::Tensor& input,
                                      const at::Tensor& weight, const at::Tensor& offset,
                                      const at::Tensor& mask, const at::Tensor& bias);
TILEWRIGHT_API void check_deform_conv_backward(const DeformConvArgs& args, const at::Tensor& grad,
                                               const at::Tensor& input, const at::Tensor& weight,
                                               const at::Tensor& offset, const at::Tensor& mask,
                                               const DeformConvNeeds& needs);

// The result, not initialised.
TILEWRIGHT_API at::Tensor deform_conv_output(const DeformConvArgs& args, const at::Tensor& input,
                                             const at::Tensor& weight);
inline bool is_channels_last(const at::Tensor& tensor) {
  return tensor.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
}
// The type that sums are kept in.
inline at::ScalarType deform_sums_type(const at::Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}
// A tensor as the kernels take offsets, masks and biases, in that type; undefined stays undefined.
inline at::Tensor deform_sums_of(const at::Tensor& tensor, const at::Tensor& input) {
  return tensor.defined() ? tensor.to(deform_sums_type(input)).contiguous() : tensor;
}

// Gradients where input or result have no elements: all 0 but the bias's, which the result gives.
TILEWRIGHT_API void clear_deform_conv_grads(DeformConvGrads& grads);

// The gradients, not initialised; of no elements where they are not needed.
TILEWRIGHT_API DeformConvGrads deform_conv_grads(const at::Tensor& input, const at::Tensor& weight,
                                                 const at::Tensor& offset, const at::Tensor& mask,
                                                 const DeformConvNeeds& needs);

// Of tensors that were checked, on a machine.
TILEWRIGHT_API DeformConvShape deform_conv_shape(const DeformConvArgs& args,
                                                 const at::Tensor& input, const at::Tensor& weight);

}  // namespace tilewright
