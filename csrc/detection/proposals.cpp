// Proposal generation: schema, checks, and the steps in terms of the other box operators.
#include "tilewright/detection/proposals.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <torch/library.h>

#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/box_coder.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/detection/boxes_internal.h"
#include "tilewright/detection/nms.h"

namespace tilewright {
namespace {

void check_inputs(const at::Tensor& objectness, const at::Tensor& deltas, const at::Tensor& anchors,
                  c10::SymIntArrayRef level_sizes, int64_t pre_nms_top_n, int64_t post_nms_top_n) {
  constexpr auto kOp = "generate_proposals";
  check_shape(kOp, "objectness", objectness, "(A,)", 1);
  check_floating(kOp, "objectness", objectness);
  boxes_internal::check_box_rows(kOp, "deltas", deltas);
  boxes_internal::check_box_rows(kOp, "anchors", anchors);
  const auto count = objectness.sym_size(0);
  TILEWRIGHT_CHECK(kOp, deltas.sym_size(0) == count && anchors.sym_size(0) == count,
                   "objectness, deltas and anchors must have as many rows, got ",
                   shape_of(objectness), ", ", shape_of(deltas), " and ", shape_of(anchors));
  check_same_device(kOp, "objectness", objectness, "deltas", deltas);
  check_same_device(kOp, "objectness", objectness, "anchors", anchors);
  c10::SymInt sum = 0;
  for (const auto& size : level_sizes) {
    TILEWRIGHT_CHECK(kOp, size >= 0, "level_sizes must not be negative, got ", size);
    sum = sum + size;
  }
  TILEWRIGHT_CHECK(kOp, !level_sizes.empty() && sum == count, "level_sizes must add up to the ",
                   count, " anchors, got a sum of ", sum, " over ", level_sizes.size(), " levels");
  TILEWRIGHT_CHECK(kOp, pre_nms_top_n > 0 && post_nms_top_n > 0,
                   "pre_nms_top_n and post_nms_top_n must be positive, got ", pre_nms_top_n,
                   " and ", post_nms_top_n);
}

struct Candidates {
  at::Tensor index, level;  // (C,) int64: row among all anchors, level it belongs to
};

Candidates best_of_each_level(const at::Tensor& logits, c10::SymIntArrayRef level_sizes,
                              int64_t top_n) {
  const auto sortable =
      logits.masked_fill(logits.isnan(), -std::numeric_limits<double>::infinity());
  std::vector<at::Tensor> index, level;
  c10::SymInt offset = 0;
  for (size_t i = 0; i < level_sizes.size(); ++i) {
    const auto& size = level_sizes[i];
    const auto here = sortable.narrow_symint(0, offset, size);
    index.push_back(std::get<1>(here.topk_symint(size.min(top_n), 0)) + at::Scalar(offset));
    level.push_back(at::full_symint({size.min(top_n)}, static_cast<int64_t>(i),
                                    logits.options().dtype(at::kLong)));
    offset = offset + size;
  }
  return {at::cat(index), at::cat(level)};
}

std::tuple<at::Tensor, at::Tensor> propose(const at::Tensor& objectness, const at::Tensor& deltas,
                                           const at::Tensor& anchors,
                                           c10::SymIntArrayRef level_sizes,
                                           c10::SymInt image_height, c10::SymInt image_width,
                                           int64_t pre_nms_top_n, int64_t post_nms_top_n,
                                           double nms_threshold, double score_threshold,
                                           double min_size) {
  check_inputs(objectness, deltas, anchors, level_sizes, pre_nms_top_n, post_nms_top_n);
  const auto logits = boxes_internal::at_least_float(objectness.detach());
  const auto best = best_of_each_level(logits, level_sizes, pre_nms_top_n);
  const auto scores = logits.index_select(0, best.index).sigmoid();
  const auto decoded = decode_boxes(deltas.detach().index_select(0, best.index),
                                    anchors.detach().index_select(0, best.index), kRpnBoxWeights);
  const auto boxes = clip_boxes(decoded, std::move(image_height), std::move(image_width));
  // A NaN makes each of these comparisons false, and batched_nms drops what has a NaN for a score:
  // so only one step has a shape that depends on data.
  const auto usable =
      boxes_internal::sides_at_least(boxes, min_size).logical_and(scores >= score_threshold);
  const auto order =
      batched_nms(boxes, scores.masked_fill(usable.logical_not(), boxes_internal::kNan), best.level,
                  nms_threshold, post_nms_top_n);
  return {boxes.index_select(0, order), scores.index_select(0, order)};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> generate_proposals(
    const at::Tensor& objectness, const at::Tensor& deltas, const at::Tensor& anchors,
    c10::SymIntArrayRef level_sizes, c10::SymInt image_height, c10::SymInt image_width,
    int64_t pre_nms_top_n, int64_t post_nms_top_n, double nms_threshold, double score_threshold,
    double min_size) {
  static const auto op =
      operator_handle<decltype(generate_proposals)>("tilewright::generate_proposals");
  return op.call(objectness, deltas, anchors, level_sizes, std::move(image_height),
                 std::move(image_width), pre_nms_top_n, post_nms_top_n, nms_threshold,
                 score_threshold, min_size);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "generate_proposals(Tensor objectness, Tensor deltas, Tensor anchors, SymInt[] level_sizes, "
      "SymInt image_height, SymInt image_width, int pre_nms_top_n=1000, int post_nms_top_n=1000, "
      "float nms_threshold=0.7, float score_threshold=0.0, float min_size=0.001) -> "
      "(Tensor boxes, Tensor scores)",
      {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("generate_proposals", &tilewright::propose);
}
