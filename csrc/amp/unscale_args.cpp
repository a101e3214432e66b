#include "tilewright/amp/unscale_args.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "tilewright/amp/grads_args.h"
#include "tilewright/core/check.h"

namespace tilewright {

void check_unscale(const char* op, at::TensorList grads, const at::Tensor& found_inf,
                   const at::Tensor& inv_scale, const std::optional<at::Tensor>& first_bad) {
  check_number(op, "found_inf", found_inf, at::kFloat, found_inf);
  check_number(op, "inv_scale", inv_scale, at::kFloat, found_inf);
  if (first_bad) check_number(op, "first_bad", *first_bad, at::kLong, found_inf);
  check_grads(op, grads, found_inf);
}

at::Tensor empty_norm(at::TensorList grads, const at::Tensor& found_inf) {
  const bool wide = std::any_of(grads.begin(), grads.end(), [](const at::Tensor& grad) {
    return grad.scalar_type() == at::kDouble;
  });
  return at::empty({}, found_inf.options().dtype(wide ? at::kDouble : at::kFloat));
}

}  // namespace tilewright
