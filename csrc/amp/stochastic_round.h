// Rounding up or down by chance, so that means are kept: what lets bfloat16 parameters learn from
// updates smaller than their last place (Gupta et al., Deep Learning with Limited Numerical
// Precision, arXiv:1502.02551).
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// outputs: bfloat16; inputs: float32, of the same shapes and device. Each output is one of the two
// neighbours of its input, the nearer one with the greater probability, so that its expectation is
// the input. Inputs that bfloat16 holds stay as they are, inf and NaN too; finite ones stay finite.
// rng_state: (2,) int64, seed and offset; chance depends on them, on the number of the tensor and
// on the place in it alone, on the CPU as on CUDA. Errors: other dtypes, shapes that differ,
// outputs that require grad while grad mode is on or share memory.
TILEWRIGHT_API void stochastic_round_(at::TensorList outputs, at::TensorList inputs,
                                      const at::Tensor& rng_state);

}  // namespace tilewright
