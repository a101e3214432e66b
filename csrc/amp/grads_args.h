// What operators on lists of gradients demand, and the memory they work on.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// By shapes and dtypes alone.
TILEWRIGHT_API void check_grads(const char* op, at::TensorList grads, const at::Tensor& beside);
// One number of that dtype, on the device of `beside`.
TILEWRIGHT_API void check_number(const char* op, const char* name, const at::Tensor& tensor,
                                 at::ScalarType dtype, const at::Tensor& beside);
// That no gradient is asked of a tensor that is changed in place.
TILEWRIGHT_API void check_no_grad(const char* op, const std::string& name,
                                  const at::Tensor& tensor);
// That the tensor's version can be counted after it was changed.
TILEWRIGHT_API void check_changeable(const char* op, const at::Tensor& tensor);
// That no two of a list called `list` share memory: some would be written twice. Returns whether
// some have gaps in memory.
TILEWRIGHT_API bool check_apart(const char* op, const char* list, at::TensorList tensors);

// "grads[3]".
TILEWRIGHT_API std::string place_in(const char* list, size_t index);
// The tensor, or a copy without gaps in memory.
inline at::Tensor dense_of(const at::Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
}

// Gradients without gaps in memory: themselves, or copies that go back at the end.
class TILEWRIGHT_API DenseGrads {
 public:
  DenseGrads(const char* op, at::TensorList grads);
  at::TensorList tensors() const { return copies_.empty() ? given_ : at::TensorList(copies_); }
  void copy_back() const;

 private:
  at::TensorList given_;
  std::vector<at::Tensor> copies_;  // of all, or none: thousands need not be counted again
};

}  // namespace tilewright
