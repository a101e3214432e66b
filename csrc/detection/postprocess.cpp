// Detections from scores and boxes: schema, checks, and the selection in tensor operations.
#include "tilewright/detection/postprocess.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/detection/boxes_internal.h"
#include "tilewright/detection/nms.h"

namespace tilewright {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> detect(const at::Tensor& scores,
                                                      const at::Tensor& boxes,
                                                      c10::SymInt image_height,
                                                      c10::SymInt image_width,
                                                      double score_threshold, double nms_threshold,
                                                      int64_t max_detections, double min_size) {
  constexpr auto kOp = "postprocess_detections";
  TILEWRIGHT_CHECK(kOp, scores.dim() == 2 && scores.sym_size(1) >= 2,
                   "scores must have shape (P, C) with C >= 2 classes (0 is the background), got ",
                   shape_of(scores));
  check_floating(kOp, "scores", scores);
  check_floating(kOp, "boxes", boxes);
  TILEWRIGHT_CHECK(kOp,
                   boxes.dim() == 2 && boxes.sym_size(0) == scores.sym_size(0) &&
                       boxes.sym_size(1) == scores.sym_size(1) * 4,
                   "boxes must have shape (P, 4 * C) for scores (P, C) ", shape_of(scores),
                   ", got ", shape_of(boxes));
  check_same_device(kOp, "scores", scores, "boxes", boxes);
  TILEWRIGHT_CHECK(kOp, max_detections > 0, "max_detections must be positive, got ",
                   max_detections);
  // Each pair of proposal and class is a candidate: N = P * (C - 1).
  const auto candidates = boxes_internal::at_least_float(scores).slice(1, 1).flatten();  // (N,)
  const auto clipped =
      clip_boxes(boxes_internal::at_least_float(boxes).slice(1, 4).reshape({-1, 4}),
                 std::move(image_height), std::move(image_width));  // (N, 4)
  const auto labels =
      at::arange(1, at::Scalar(scores.sym_size(1)), scores.options().dtype(at::kLong))
          .expand_symint({scores.sym_size(0), -1})
          .flatten();  // (N,)
  // batched_nms drops what has a NaN for a score: so only one step has a shape that depends on
  // data.
  const auto usable =
      boxes_internal::sides_at_least(clipped, min_size).logical_and(candidates > score_threshold);
  const auto order =
      batched_nms(clipped, candidates.masked_fill(usable.logical_not(), boxes_internal::kNan),
                  labels, nms_threshold, max_detections);
  return {clipped.index_select(0, order), candidates.index_select(0, order),
          labels.index_select(0, order)};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> postprocess_detections(
    const at::Tensor& scores, const at::Tensor& boxes, c10::SymInt image_height,
    c10::SymInt image_width, double score_threshold, double nms_threshold, int64_t max_detections,
    double min_size) {
  static const auto op =
      operator_handle<decltype(postprocess_detections)>("tilewright::postprocess_detections");
  return op.call(scores, boxes, std::move(image_height), std::move(image_width), score_threshold,
                 nms_threshold, max_detections, min_size);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "postprocess_detections(Tensor scores, Tensor boxes, SymInt image_height, "
      "SymInt image_width, float score_threshold=0.05, float nms_threshold=0.5, "
      "int max_detections=100, float min_size=0.01) -> (Tensor boxes, Tensor scores, Tensor "
      "labels)",
      {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("postprocess_detections", &tilewright::detect);
}
