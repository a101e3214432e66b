// Whether operators on a tensor run device code, for host code that takes another way there.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// True of tensors on CUDA. Also of those on the CPU once the emulated device (tests/simt) has been
// loaded, whose kernels stand in the place of the CPU's.
TILEWRIGHT_API bool is_on_device(const at::Tensor& tensor);

// What the emulated device's library says when it is loaded.
TILEWRIGHT_API void emulate_device();

}  // namespace tilewright
