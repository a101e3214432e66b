#include "tilewright/core/data_at_hand.h"

#include <ATen/ops/aminmax.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <cmath>

#include "tilewright/core/on_device.h"

namespace tilewright {

bool is_traced(const at::Tensor& tensor) {
  return tensor.is_meta() || tensor.key_set().has(c10::DispatchKey::Python) ||
         c10::impl::TorchDispatchModeTLS::any_modes_set();
}

bool has_data_at_hand(const at::Tensor& tensor) {
  return !is_traced(tensor) && tensor.has_storage() && tensor.is_cpu() && !is_on_device(tensor);
}

std::optional<std::pair<double, double>> range_at_hand(const at::Tensor& tensor) {
  if (!has_data_at_hand(tensor) || tensor.numel() == 0) return std::nullopt;
  const auto [least, most] = at::aminmax(tensor.detach());
  // Without a NaN's sign, which says nothing.
  const auto value = [](const at::Tensor& x) {
    const auto found = x.item<double>();
    return std::isnan(found) ? std::abs(found) : found;
  };
  return std::pair(value(least), value(most));
}

}  // namespace tilewright
