// One wording for error messages: which operator, what was expected, what came.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <sstream>
#include <string>

#include "tilewright/core/export.h"

// TILEWRIGHT_CHECK("roi_align", rois.dim() == 2, "rois must have shape (K, 5), got ",
// shape_of(rois)) throws c10::Error (RuntimeError in Python): "tilewright::roi_align: rois must
// have shape ...".
#define TILEWRIGHT_CHECK(op, condition, ...) \
  TORCH_CHECK(condition, "tilewright::", op, ": ", __VA_ARGS__)

namespace tilewright {

// "(3, 4)"; works for symbolic sizes too.
inline std::string shape_of(c10::SymIntArrayRef sizes) {
  std::ostringstream text;
  text << '(';
  for (size_t i = 0; i < sizes.size(); ++i) text << (i ? ", " : "") << sizes[i];
  text << (sizes.size() == 1 ? ",)" : ")");
  return text.str();
}

// The same, or "None" where there is no tensor.
inline std::string shape_of(const at::Tensor& tensor) {
  return tensor.defined() ? shape_of(tensor.sym_sizes()) : "None";
}

// `shape` is the wording of the expected shape, such as "(K, 5)". `last` is the size that the last
// dimension must have, -1 where any will do.
inline void check_shape(const char* op, const char* name, const at::Tensor& tensor,
                        const char* shape, int64_t dim, int64_t last = -1) {
  TILEWRIGHT_CHECK(op, tensor.dim() == dim && (last < 0 || tensor.sym_size(-1) == last), name,
                   " must have shape ", shape, ", got ", shape_of(tensor));
}

// Python's None passes as a tensor that is not there.
inline void check_given(const char* op, const char* name, const at::Tensor& tensor) {
  TILEWRIGHT_CHECK(op, tensor.defined(), name, " must be a tensor, got None");
}

inline void check_floating(const char* op, const char* name, const at::Tensor& tensor) {
  check_given(op, name, tensor);
  const auto type = tensor.scalar_type();
  TILEWRIGHT_CHECK(
      op, type == at::kDouble || type == at::kFloat || type == at::kHalf || type == at::kBFloat16,
      name, " must be float64, float32, float16 or bfloat16, got ", type);
}

inline void check_same_device(const char* op, const char* first_name, const at::Tensor& first,
                              const char* second_name, const at::Tensor& second) {
  TILEWRIGHT_CHECK(op, first.device() == second.device(), second_name, " must be on the device of ",
                   first_name, " (", first.device(), "), got ", second.device());
}

}  // namespace tilewright
