// The geometry operators over boxes: schemas, checks and the one implementation in tensor
// operations.
#include "tilewright/detection/boxes.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/boxes_internal.h"

namespace tilewright {
namespace {

using boxes_internal::check_coordinates;
using boxes_internal::check_pairs;
using boxes_internal::computable;
using boxes_internal::finite_or_empty;
using boxes_internal::finite_rows;

struct Overlap {
  at::Tensor intersection, union_area, hull;  // (..., N, M)
};

// `hull` is the area of the smallest box around both; it is filled in on demand.
Overlap overlap_of_pairs(const at::Tensor& boxes1, const at::Tensor& boxes2, bool with_hull) {
  const auto first = finite_or_empty(computable(boxes1));
  const auto second = finite_or_empty(computable(boxes2));
  const auto a = first.unsqueeze(-2).unbind(-1);   // 4 x (..., N, 1)
  const auto b = second.unsqueeze(-3).unbind(-1);  // 4 x (..., 1, M)
  const auto side = [&](int64_t low, int64_t high) {
    return (a[high].minimum(b[high]) - a[low].maximum(b[low])).clamp_min(0);
  };
  const auto hull_side = [&](int64_t low, int64_t high) {
    return (a[high].maximum(b[high]) - a[low].minimum(b[low])).clamp_min(0);
  };
  Overlap overlap;
  overlap.intersection = side(0, 2) * side(1, 3);
  overlap.union_area =
      (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap.intersection;
  if (with_hull) overlap.hull = hull_side(0, 2) * hull_side(1, 3);
  return overlap;
}

}  // namespace

void boxes_internal::check_pairs(const char* op, const at::Tensor& boxes1, const at::Tensor& boxes2,
                                 int64_t columns) {
  for (const auto& [name, boxes] : {std::pair{"boxes1", &boxes1}, std::pair{"boxes2", &boxes2}}) {
    TILEWRIGHT_CHECK(op, boxes->dim() >= 2 && boxes->sym_size(-1) == columns, name,
                     " must have shape (..., N, ", columns, "), got ", shape_of(*boxes));
    boxes_internal::check_numbers(op, name, *boxes);
  }
  check_same_device(op, "boxes1", boxes1, "boxes2", boxes2);
  const auto first = boxes1.sym_sizes().slice(0, boxes1.dim() - 2);
  const auto second = boxes2.sym_sizes().slice(0, boxes2.dim() - 2);
  for (size_t i = 1; i <= std::min(first.size(), second.size()); ++i) {
    const auto& a = first[first.size() - i];
    const auto& b = second[second.size() - i];
    TILEWRIGHT_CHECK(op, a == b || a == 1 || b == 1,
                     "the leading dimensions of boxes1 and boxes2 must broadcast, got ",
                     shape_of(boxes1), " and ", shape_of(boxes2));
  }
}

namespace {

at::Tensor area(const at::Tensor& boxes) {
  check_coordinates("box_area", "boxes", boxes);
  const auto side = computable(boxes).unbind(-1);
  return (side[2] - side[0]) * (side[3] - side[1]);
}

at::Tensor iou(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_pairs("box_iou", boxes1, boxes2, 4);
  const auto overlap = overlap_of_pairs(boxes1, boxes2, /*with_hull=*/false);
  // Masked on both sides of the division, so that neither value nor gradient sees 0 / 0.
  const auto empty = (overlap.union_area > 0).logical_not();
  return (overlap.intersection / overlap.union_area.masked_fill(empty, 1)).masked_fill(empty, 0);
}

at::Tensor generalized_iou(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_pairs("generalized_box_iou", boxes1, boxes2, 4);
  const auto overlap = overlap_of_pairs(boxes1, boxes2, /*with_hull=*/true);
  const auto finite =
      finite_rows(boxes1).unsqueeze(-1).logical_and(finite_rows(boxes2).unsqueeze(-2));
  const auto empty =
      (overlap.union_area > 0).logical_and(overlap.hull > 0).logical_and(finite).logical_not();
  const auto union_area = overlap.union_area.masked_fill(empty, 1);
  const auto hull = overlap.hull.masked_fill(empty, 1);
  return (overlap.intersection / union_area - (hull - union_area) / hull).masked_fill(empty, 0);
}

at::Tensor clip(const at::Tensor& boxes, c10::SymInt height, c10::SymInt width) {
  check_coordinates("clip_boxes", "boxes", boxes);
  TILEWRIGHT_CHECK("clip_boxes", height >= 0 && width >= 0,
                   "height and width must not be negative, got ", height, " and ", width);
  const auto x = boxes.slice(-1, 0, 4, 2).clamp(0, at::Scalar(width));   // (..., 2)
  const auto y = boxes.slice(-1, 1, 4, 2).clamp(0, at::Scalar(height));  // (..., 2)
  return at::stack({x, y}, -1).flatten(-2);
}

double resize_ratio(int64_t new_size, int64_t original_size, bool in_double) {
  if (in_double) return static_cast<double>(new_size) / static_cast<double>(original_size);
  return static_cast<float>(new_size) / static_cast<float>(original_size);
}

at::Tensor resize(const at::Tensor& boxes, at::IntArrayRef original_size,
                  at::IntArrayRef new_size) {
  constexpr auto kOp = "resize_boxes";
  check_coordinates(kOp, "boxes", boxes);
  check_floating(kOp, "boxes", boxes);
  TILEWRIGHT_CHECK(kOp, original_size.size() == 2 && new_size.size() == 2,
                   "sizes must be (height, width), got ", original_size, " and ", new_size);
  for (const auto size : {original_size[0], original_size[1], new_size[0], new_size[1]}) {
    TILEWRIGHT_CHECK(kOp, size > 0, "sizes must be positive, got ", original_size, " and ",
                     new_size);
  }
  const bool in_double = boxes.scalar_type() == at::kDouble;
  const double ratio_y = resize_ratio(new_size[0], original_size[0], in_double);
  const double ratio_x = resize_ratio(new_size[1], original_size[1], in_double);
  const auto wide = boxes_internal::at_least_float(boxes);
  const auto x = wide.slice(-1, 0, 4, 2) * ratio_x;
  const auto y = wide.slice(-1, 1, 4, 2) * ratio_y;
  return at::stack({x, y}, -1).flatten(-2);
}

at::Tensor to_rois(at::TensorList boxes) {
  constexpr auto kOp = "boxes_to_rois";
  TILEWRIGHT_CHECK(kOp, !boxes.empty(), "boxes must hold one tensor per image, got an empty list");
  std::vector<at::Tensor> rows;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const auto name = "boxes[" + std::to_string(i) + "]";
    boxes_internal::check_box_rows(kOp, name.c_str(), boxes[i]);
    check_same_device(kOp, "boxes[0]", boxes[0], name.c_str(), boxes[i]);
    TILEWRIGHT_CHECK(kOp, boxes[i].scalar_type() == boxes[0].scalar_type(), name,
                     " must have the dtype of boxes[0] (", boxes[0].scalar_type(), "), got ",
                     boxes[i].scalar_type());
    // 16 bits do not hold every index: bfloat16 goes from 256 to 258.
    const auto wide = boxes_internal::at_least_float(boxes[i]);
    const auto image = at::full_like(wide.slice(1, 0, 1), static_cast<int64_t>(i));  // (n, 1)
    rows.push_back(at::cat({image, wide}, 1));
  }
  return at::cat(rows);  // (K, 5)
}

}  // namespace

at::Tensor box_area(const at::Tensor& boxes) {
  static const auto op = operator_handle<decltype(box_area)>("tilewright::box_area");
  return op.call(boxes);
}

at::Tensor box_iou(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  static const auto op = operator_handle<decltype(box_iou)>("tilewright::box_iou");
  return op.call(boxes1, boxes2);
}

at::Tensor generalized_box_iou(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  static const auto op =
      operator_handle<decltype(generalized_box_iou)>("tilewright::generalized_box_iou");
  return op.call(boxes1, boxes2);
}

at::Tensor clip_boxes(const at::Tensor& boxes, c10::SymInt height, c10::SymInt width) {
  static const auto op = operator_handle<decltype(clip_boxes)>("tilewright::clip_boxes");
  return op.call(boxes, std::move(height), std::move(width));
}

at::Tensor resize_boxes(const at::Tensor& boxes, at::IntArrayRef original_size,
                        at::IntArrayRef new_size) {
  static const auto op = operator_handle<decltype(resize_boxes)>("tilewright::resize_boxes");
  return op.call(boxes, original_size, new_size);
}

at::Tensor boxes_to_rois(at::TensorList boxes) {
  static const auto op = operator_handle<decltype(boxes_to_rois)>("tilewright::boxes_to_rois");
  return op.call(boxes);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def("box_area(Tensor boxes) -> Tensor", tags);
  m.def("box_iou(Tensor boxes1, Tensor boxes2) -> Tensor", tags);
  m.def("generalized_box_iou(Tensor boxes1, Tensor boxes2) -> Tensor", tags);
  m.def("clip_boxes(Tensor boxes, SymInt height, SymInt width) -> Tensor", tags);
  m.def("resize_boxes(Tensor boxes, int[2] original_size, int[2] new_size) -> Tensor", tags);
  m.def("boxes_to_rois(Tensor[] boxes) -> Tensor", tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("box_area", &tilewright::area);
  m.impl("box_iou", &tilewright::iou);
  m.impl("generalized_box_iou", &tilewright::generalized_iou);
  m.impl("clip_boxes", &tilewright::clip);
  m.impl("resize_boxes", &tilewright::resize);
  m.impl("boxes_to_rois", &tilewright::to_rois);
}
