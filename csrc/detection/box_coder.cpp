// Encoding and decoding of box regression deltas: schemas, checks and the arithmetic.
#include "tilewright/detection/box_coder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/boxes_internal.h"

namespace tilewright {
namespace {

using boxes_internal::at_least_float;
using boxes_internal::check_box_rows;
using boxes_internal::finite_or_empty;

void check_weights(const char* op, at::ArrayRef<double> weights) {
  TILEWRIGHT_CHECK(op, weights.size() == 4, "weights must be four numbers, got ", weights.size());
  for (const double weight : weights) {
    TILEWRIGHT_CHECK(op, weight > 0, "weights must be positive, got ", weights);
  }
}

struct CentredBoxes {
  at::Tensor width, height, center_x, center_y;  // (N, 1)
};

CentredBoxes centred(const at::Tensor& boxes) {
  const auto side = boxes.split(1, 1);
  CentredBoxes out;
  out.width = side[2] - side[0];
  out.height = side[3] - side[1];
  out.center_x = side[0] + 0.5 * out.width;
  out.center_y = side[1] + 0.5 * out.height;
  return out;
}

at::Tensor encode(const at::Tensor& reference, const at::Tensor& proposals,
                  at::ArrayRef<double> weights) {
  constexpr auto kOp = "encode_boxes";
  check_box_rows(kOp, "reference", reference);
  check_box_rows(kOp, "proposals", proposals);
  TILEWRIGHT_CHECK(kOp, reference.sym_size(0) == proposals.sym_size(0),
                   "reference and proposals must have as many rows, got ", shape_of(reference),
                   " and ", shape_of(proposals));
  check_same_device(kOp, "reference", reference, "proposals", proposals);
  check_weights(kOp, weights);
  const auto to = centred(finite_or_empty(at_least_float(reference)));
  const auto from = centred(finite_or_empty(at_least_float(proposals)));
  // Masked before the divisions and logarithms and after, for the sake of the gradient.
  const auto degenerate = (from.width > 0)
                              .logical_and(from.height > 0)
                              .logical_and(to.width > 0)
                              .logical_and(to.height > 0)
                              .logical_not();  // (N, 1)
  const auto width = from.width.masked_fill(degenerate, 1);
  const auto height = from.height.masked_fill(degenerate, 1);
  const auto dx = weights[0] * (to.center_x - from.center_x) / width;
  const auto dy = weights[1] * (to.center_y - from.center_y) / height;
  const auto dw = weights[2] * (to.width.masked_fill(degenerate, 1) / width).log();
  const auto dh = weights[3] * (to.height.masked_fill(degenerate, 1) / height).log();
  return at::stack({dx, dy, dw, dh}, -1).flatten(1).masked_fill(degenerate, 0);  // (N, 4)
}

at::Tensor decode(const at::Tensor& deltas, const at::Tensor& boxes, at::ArrayRef<double> weights,
                  double clip) {
  constexpr auto kOp = "decode_boxes";
  TILEWRIGHT_CHECK(kOp, deltas.dim() == 2 && deltas.sym_size(1) % 4 == 0,
                   "deltas must have shape (N, 4 * num_classes), got ", shape_of(deltas));
  check_floating(kOp, "deltas", deltas);
  check_box_rows(kOp, "boxes", boxes);
  TILEWRIGHT_CHECK(kOp, deltas.sym_size(0) == boxes.sym_size(0),
                   "deltas and boxes must have as many rows, got ", shape_of(deltas), " and ",
                   shape_of(boxes));
  check_same_device(kOp, "deltas", deltas, "boxes", boxes);
  check_weights(kOp, weights);
  const auto from = centred(at_least_float(boxes));
  const auto wide = at_least_float(deltas);
  const auto delta = [&](int64_t part) {
    return wide.slice(1, part, std::nullopt, 4) / weights[part];  // (N, K)
  };
  const auto center_x = delta(0) * from.width + from.center_x;
  const auto center_y = delta(1) * from.height + from.center_y;
  const auto half_width = 0.5 * (delta(2).clamp_max(clip).exp() * from.width);
  const auto half_height = 0.5 * (delta(3).clamp_max(clip).exp() * from.height);
  return at::stack({center_x - half_width, center_y - half_height, center_x + half_width,
                    center_y + half_height},
                   2)
      .flatten(1);  // (N, K, 4) -> (N, 4 * K)
}

}  // namespace

at::Tensor encode_boxes(const at::Tensor& reference, const at::Tensor& proposals,
                        at::ArrayRef<double> weights) {
  static const auto op = operator_handle<decltype(encode_boxes)>("tilewright::encode_boxes");
  return op.call(reference, proposals, weights);
}

at::Tensor decode_boxes(const at::Tensor& deltas, const at::Tensor& boxes,
                        at::ArrayRef<double> weights, double clip) {
  static const auto op = operator_handle<decltype(decode_boxes)>("tilewright::decode_boxes");
  return op.call(deltas, boxes, weights, clip);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def("encode_boxes(Tensor reference, Tensor proposals, float[4] weights) -> Tensor", tags);
  m.def(
      "decode_boxes(Tensor deltas, Tensor boxes, float[4] weights, "
      "float clip=4.135166556742356) -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("encode_boxes", &tilewright::encode);
  m.impl("decode_boxes", &tilewright::decode);
}
