// Gradients of a scaled loss made true again: divided by the scale, and looked through for inf and
// NaN, in one pass (Micikevicius et al., Mixed Precision Training, arXiv:1710.03740).
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// grads: any number of tensors of any shapes, float64 to float16, on one device; each is multiplied
// by inv_scale in place. found_inf: one float32, set to 1 where a gradient is inf or NaN before or
// after that (a scale too small for its inverse, a result beyond the dtype), else left as it is.
// inv_scale: one float32; 1 writes nothing. first_bad: one int64, lowered to the index of the first
// such gradient. write: or gradients stay as they are, and the products are only looked at.
// Errors: gradients that are sparse (give their coalesced values), that require grad while grad
// mode is on, that share memory with each other or with themselves, or are on other devices. On
// CUDA no answer of the device is waited for.
TILEWRIGHT_API void unscale_(at::TensorList grads, const at::Tensor& found_inf,
                             const at::Tensor& inv_scale,
                             const std::optional<at::Tensor>& first_bad = {}, bool write = true);

// The same, and the 2-norm of all results together, one float32 (float64 where a gradient is):
// squares are added in float64 (of float32 a few in float32 before, where it holds them), in an
// order that depends on shapes alone. 0 of no gradients.
TILEWRIGHT_API at::Tensor unscale_and_norm_(at::TensorList grads, const at::Tensor& found_inf,
                                            const at::Tensor& inv_scale,
                                            const std::optional<at::Tensor>& first_bad = {},
                                            bool write = true);

}  // namespace tilewright
