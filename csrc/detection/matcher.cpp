// Matching of boxes to ground truths: schemas, checks, and the rules as masks without loops.
#include "tilewright/detection/matcher.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/detection/boxes_internal.h"

namespace tilewright {
namespace {

at::Tensor match(const at::Tensor& iou, double high_threshold, double low_threshold,
                 bool allow_low_quality) {
  constexpr auto kOp = "match_boxes";
  check_shape(kOp, "iou", iou, "(G, M)", 2);
  check_floating(kOp, "iou", iou);
  TILEWRIGHT_CHECK(kOp, low_threshold <= high_threshold,
                   "low_threshold must not exceed high_threshold, got ", low_threshold, " and ",
                   high_threshold);
  if (iou.sym_size(0) == 0 || iou.sym_size(1) == 0) {
    return at::full_symint({iou.sym_size(1)}, kMatchBackground, iou.options().dtype(at::kLong));
  }
  const auto [best, truth] = iou.max(0);  // (M,), (M,)
  auto matches = truth.masked_fill(best < high_threshold, kMatchIgnored)
                     .masked_fill((best >= low_threshold).logical_not(), kMatchBackground);
  if (allow_low_quality) {
    const auto best_of_truth = std::get<0>(iou.max(1, /*keepdim=*/true));  // (G, 1)
    // A truth that overlaps no box has nothing to keep: 0 == 0 would give it every box.
    const auto kept = (iou == best_of_truth)
                          .logical_and(best_of_truth > 0)
                          .any(0)
                          .logical_and(best == best);  // (M,)
    matches = truth.where(kept, matches);
  }
  return matches;
}

std::tuple<at::Tensor, at::Tensor> assign(const at::Tensor& gt_boxes, const at::Tensor& gt_labels,
                                          const at::Tensor& boxes, double high_threshold,
                                          double low_threshold, bool allow_low_quality) {
  constexpr auto kOp = "assign_targets";
  boxes_internal::check_box_rows(kOp, "gt_boxes", gt_boxes);
  boxes_internal::check_box_rows(kOp, "boxes", boxes);
  TILEWRIGHT_CHECK(kOp, gt_labels.dim() == 1 && gt_labels.sym_size(0) == gt_boxes.sym_size(0),
                   "gt_labels must have shape (G,) for gt_boxes (G, 4), got ", shape_of(gt_labels),
                   " for ", shape_of(gt_boxes));
  TILEWRIGHT_CHECK(kOp, gt_labels.scalar_type() == at::kLong, "gt_labels must be int64, got ",
                   gt_labels.scalar_type());
  if (gt_boxes.sym_size(0) == 0) {
    const auto rows = boxes.sym_size(0);
    return {at::zeros_symint({rows}, gt_labels.options()),
            at::zeros_symint({rows, 4}, gt_boxes.options())};
  }
  const auto matches =
      match_boxes(box_iou(gt_boxes, boxes), high_threshold, low_threshold, allow_low_quality);
  const auto truth = matches.clamp_min(0);
  const auto labels = gt_labels.index_select(0, truth)
                          .masked_fill(matches == kMatchBackground, 0)
                          .masked_fill(matches == kMatchIgnored, -1);
  return {labels, gt_boxes.index_select(0, truth)};
}

}  // namespace

at::Tensor match_boxes(const at::Tensor& iou, double high_threshold, double low_threshold,
                       bool allow_low_quality) {
  static const auto op = operator_handle<decltype(match_boxes)>("tilewright::match_boxes");
  return op.call(iou, high_threshold, low_threshold, allow_low_quality);
}

std::tuple<at::Tensor, at::Tensor> assign_targets(const at::Tensor& gt_boxes,
                                                  const at::Tensor& gt_labels,
                                                  const at::Tensor& boxes, double high_threshold,
                                                  double low_threshold, bool allow_low_quality) {
  static const auto op = operator_handle<decltype(assign_targets)>("tilewright::assign_targets");
  return op.call(gt_boxes, gt_labels, boxes, high_threshold, low_threshold, allow_low_quality);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "match_boxes(Tensor iou, float high_threshold, float low_threshold, "
      "bool allow_low_quality=False) -> Tensor",
      tags);
  m.def(
      "assign_targets(Tensor gt_boxes, Tensor gt_labels, Tensor boxes, float high_threshold, "
      "float low_threshold, bool allow_low_quality=False) -> (Tensor labels, Tensor matched_boxes)",
      tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("match_boxes", &tilewright::match);
  m.impl("assign_targets", &tilewright::assign);
}
