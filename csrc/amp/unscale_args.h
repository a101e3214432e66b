// What both machines check and allocate for unscale_ and unscale_and_norm_.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

constexpr const char* unscale_name(bool norm) { return norm ? "unscale_and_norm_" : "unscale_"; }

TILEWRIGHT_API void check_unscale(const char* op, at::TensorList grads, const at::Tensor& found_inf,
                                  const at::Tensor& inv_scale,
                                  const std::optional<at::Tensor>& first_bad);
// One number, not initialised: float64 where a gradient is, else float32.
TILEWRIGHT_API at::Tensor empty_norm(at::TensorList grads, const at::Tensor& found_inf);

}  // namespace tilewright
