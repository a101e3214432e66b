// What both machines check and prepare for stochastic_round_.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

TILEWRIGHT_API void check_stochastic_round(at::TensorList outputs, at::TensorList inputs,
                                           const at::Tensor& rng_state);

// Contiguous tensors, and where they come from.
struct RoundedPairs {
  std::vector<at::Tensor> outputs, inputs;
};
TILEWRIGHT_API RoundedPairs rounded_pairs(at::TensorList outputs, at::TensorList inputs);
// To outputs that are not contiguous themselves.
TILEWRIGHT_API void store_rounded(at::TensorList outputs, const RoundedPairs& pairs);

}  // namespace tilewright
