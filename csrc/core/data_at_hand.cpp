#include "tilewright/core/data_at_hand.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "tilewright/core/on_device.h"

namespace tilewright {

bool is_traced(const at::Tensor& tensor) {
  return tensor.is_meta() || tensor.key_set().has(c10::DispatchKey::Python) ||
         c10::impl::TorchDispatchModeTLS::any_modes_set();
}

bool has_data_at_hand(const at::Tensor& tensor) {
  return !is_traced(tensor) && tensor.has_storage() && tensor.is_cpu() && !is_on_device(tensor);
}

}  // namespace tilewright
