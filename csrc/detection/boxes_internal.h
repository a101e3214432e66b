// Checks and small steps that every box operator needs; nothing here is part of the public C++ API.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>

#include <cmath>
#include <limits>
#include <string>

#include "tilewright/core/check.h"

namespace tilewright::boxes_internal {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// 16-bit floats become float32; float32 and float64 stay.
inline at::Tensor at_least_float(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return type == at::kHalf || type == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

// As above for coordinates, which may be integers too: those become int64, where areas of sides
// below 3e9 do not wrap.
inline at::Tensor computable(const at::Tensor& boxes) {
  return boxes.is_floating_point() ? at_least_float(boxes) : boxes.to(at::kLong);
}

// (...,) bool: whether the values of a row of boxes are finite, and so small that neither the area
// of two boxes nor that of the box around them overflows: 4e18 in float32, 3e153 in float64.
inline at::Tensor finite_rows(const at::Tensor& boxes) {
  if (!boxes.is_floating_point()) return at::ones_like(boxes.select(-1, 0), at::kBool);
  const double largest = boxes.scalar_type() == at::kDouble ? std::numeric_limits<double>::max()
                                                            : std::numeric_limits<float>::max();
  return (at_least_float(boxes).abs() <= std::sqrt(largest) / 4).all(-1);
}

// Rows that are not finite_rows become empty boxes at the origin, which overlap nothing and get no
// gradient.
inline at::Tensor finite_or_empty(const at::Tensor& boxes) {
  if (!boxes.is_floating_point()) return boxes;
  return boxes.masked_fill(finite_rows(boxes).logical_not().unsqueeze(-1), 0);
}

// (N,) bool; false too where a side is NaN.
inline at::Tensor sides_at_least(const at::Tensor& boxes, double min_size) {
  const auto side = boxes.slice(1, 2, 4) - boxes.slice(1, 0, 2);  // (N, 2)
  return (side >= min_size).all(1);
}

inline void check_numbers(const char* op, const std::string& name, const at::Tensor& boxes) {
  TILEWRIGHT_CHECK(op, !boxes.is_complex() && boxes.scalar_type() != at::kBool, name,
                   " must be floating or integer, got ", boxes.scalar_type());
}

inline void check_coordinates(const char* op, const std::string& name, const at::Tensor& boxes) {
  TILEWRIGHT_CHECK(op, boxes.dim() >= 1 && boxes.sym_size(-1) == 4, name,
                   " must have shape (..., 4), got ", shape_of(boxes));
  check_numbers(op, name, boxes);
}

// Of an operator over all pairs: boxes1 (..., N, columns) and boxes2 (..., M, columns).
void check_pairs(const char* op, const at::Tensor& boxes1, const at::Tensor& boxes2,
                 int64_t columns);

inline void check_box_rows(const char* op, const char* name, const at::Tensor& boxes) {
  check_shape(op, name, boxes, "(N, 4)", 2, 4);
  check_floating(op, name, boxes);
}

}  // namespace tilewright::boxes_internal
