// The overlap of rotated boxes in tensor operations: the formula of rotated_math.h, for which
// tensors are one more kind of number, so that autograd follows through it.
#include "tilewright/detection/box_iou_rotated.h"

#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include "tilewright/core/math.h"

// Before the formula, which calls them.
namespace tilewright::inline TILEWRIGHT_MACHINE {
namespace {

at::Tensor min_of(const at::Tensor& a, const at::Tensor& b) { return a.minimum(b); }
at::Tensor max_of(const at::Tensor& a, const at::Tensor& b) { return a.maximum(b); }
// Masked on both sides of the division, so that neither value nor gradient sees 0 / 0.
at::Tensor ratio_or_zero(const at::Tensor& numerator, const at::Tensor& denominator) {
  const auto zero = denominator == 0;
  return (numerator / denominator.masked_fill(zero, 1)).masked_fill(zero, 0);
}

}  // namespace
}  // namespace tilewright::inline TILEWRIGHT_MACHINE

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/boxes_internal.h"
#include "tilewright/detection/rotated_math.h"

namespace tilewright {
namespace {

RotatedBox<at::Tensor> rotated_boxes(const at::Tensor& boxes, int64_t pair_dim) {
  const auto wide = boxes.to(at::kDouble);
  constexpr double kLargest = 1e75;             // products of areas stay finite
  const auto usable = (wide.abs() <= kLargest)  // false for NaN
                          .all(-1)
                          .logical_and((wide.narrow(-1, 2, 2) > 0).all(-1));  // (..., N)
  const auto values =
      wide.masked_fill(usable.logical_not().unsqueeze(-1), 0).unsqueeze(pair_dim - 1).unbind(-1);
  return {values[0], values[1], values[2], values[3], values[4].cos(), values[4].sin()};
}

at::Tensor overlap_of_pairs(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  boxes_internal::check_pairs("box_iou_rotated", boxes1, boxes2, 5);
  const auto a = rotated_boxes(boxes1, -1);  // 6 x (..., N, 1)
  const auto b = rotated_boxes(boxes2, -2);  // 6 x (..., 1, M)
  const auto intersection = rotated_intersection(a, b);
  const auto union_area = a.w * a.h + b.w * b.h - intersection;
  const auto empty = (union_area > 0).logical_and(union_area.isfinite()).logical_not();
  const auto overlap = (intersection / union_area.masked_fill(empty, 1)).masked_fill(empty, 0);
  const bool in_double = boxes1.scalar_type() == at::kDouble || boxes2.scalar_type() == at::kDouble;
  return in_double ? overlap : overlap.to(at::kFloat);
}

}  // namespace

at::Tensor box_iou_rotated(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  static const auto op = operator_handle<decltype(box_iou_rotated)>("tilewright::box_iou_rotated");
  return op.call(boxes1, boxes2);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor", {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("box_iou_rotated", &overlap_of_pairs);
}

}  // namespace tilewright
