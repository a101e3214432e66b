// What both machines check for gradient_exponents.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

TILEWRIGHT_API void check_exponents(at::TensorList grads);

}  // namespace tilewright
