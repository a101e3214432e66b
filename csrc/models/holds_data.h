// Whether the numbers of a tensor may be looked at; not part of the public C++ API.
#pragma once
#include <ATen/core/Tensor.h>

namespace tilewright {

// False for meta tensors and for those of tracers.
inline bool holds_data(const at::Tensor& tensor) {
  return !tensor.is_meta() &&
         !tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::Python);
}

}  // namespace tilewright
