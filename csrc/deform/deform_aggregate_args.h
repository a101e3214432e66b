// What deform_aggregate and its backward check and allocate, whatever the device.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

#include "tilewright/core/export.h"
#include "tilewright/deform/deform_aggregate_math.h"

namespace tilewright {

struct DeformAggregateArgs {
  const char* op;
  at::IntArrayRef kernel, stride, padding, dilation;
  int64_t groups;
  double offset_scale;
};

using DeformAggregateNeeds = std::array<bool, 3>;  // input, offset, mask
using DeformAggregateGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// An error where shapes, dtypes, devices or numbers do not fit.
TILEWRIGHT_API void check_deform_aggregate(const DeformAggregateArgs& args, const at::Tensor& input,
                                           const at::Tensor& offset, const at::Tensor& mask);
TILEWRIGHT_API void check_deform_aggregate_backward(const DeformAggregateArgs& args,
                                                    const at::Tensor& grad, const at::Tensor& input,
                                                    const at::Tensor& offset,
                                                    const at::Tensor& mask);

// The result, not initialised.
TILEWRIGHT_API at::Tensor deform_aggregate_output(const DeformAggregateArgs& args,
                                                  const at::Tensor& input);

// The gradients, not initialised; of no elements where they are not needed.
TILEWRIGHT_API DeformAggregateGrads deform_aggregate_grads(const at::Tensor& input,
                                                           const at::Tensor& offset,
                                                           const at::Tensor& mask,
                                                           const DeformAggregateNeeds& needs);

// Of tensors that were checked, on a machine.
TILEWRIGHT_API DeformAggregateShape deform_aggregate_shape(const DeformAggregateArgs& args,
                                                           const at::Tensor& input);

}  // namespace tilewright
