// Checks and sizes that the operators of the room share, whatever the device.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/check.h"

namespace tilewright {

inline c10::SymInt deform_out_size(const c10::SymInt& size, const c10::SymInt& kernel,
                                   const c10::SymInt& stride, const c10::SymInt& padding,
                                   const c10::SymInt& dilation) {
  return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

// One number or (vertical, horizontal), of int64_t or c10::SymInt.
template <class Numbers>
inline void check_pair(const char* op, const char* name, const Numbers& numbers, int64_t least) {
  TILEWRIGHT_CHECK(op, numbers.size() == 1 || numbers.size() == 2, name,
                   " must be one number or (vertical, horizontal), got ", numbers.size(),
                   " numbers");
  for (const auto& number : numbers) {
    TILEWRIGHT_CHECK(op, number >= least, name, " must be at least ", least, ", got ", number);
  }
}

// Offsets and masks may be float32 beside features of 16 bits.
inline void check_beside(const char* op, const char* name, const at::Tensor& tensor,
                         const at::Tensor& input) {
  check_floating(op, name, tensor);
  check_same_device(op, "input", input, name, tensor);
  const auto type = tensor.scalar_type(), features = input.scalar_type();
  TILEWRIGHT_CHECK(op, type == features || (type == at::kFloat && features != at::kDouble), name,
                   " must have input's dtype (", features, ")",
                   features == at::kDouble || features == at::kFloat ? "" : " or float32", ", got ",
                   type);
}

inline void check_same_dtype(const char* op, const char* name, const at::Tensor& tensor,
                             const at::Tensor& input) {
  check_given(op, name, tensor);
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == input.scalar_type(), name,
                   " must have input's dtype (", input.scalar_type(), "), got ",
                   tensor.scalar_type());
  check_same_device(op, "input", input, name, tensor);
}

}  // namespace tilewright
