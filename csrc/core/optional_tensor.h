// Saved tensors are undefined where operators take none.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace tilewright {

inline std::optional<at::Tensor> optional_of(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

}  // namespace tilewright
