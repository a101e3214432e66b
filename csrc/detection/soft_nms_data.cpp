// Soft-NMS around its kernels, in ATen.
#include "tilewright/detection/soft_nms_data.h"

#include <ATen/ATen.h>

#include "tilewright/core/check.h"

namespace tilewright {

SoftNmsMethod soft_nms_method(c10::string_view method) {
  if (method == "gaussian") return SoftNmsMethod::kGaussian;
  if (method == "linear") return SoftNmsMethod::kLinear;
  return SoftNmsMethod::kHard;
}

void check_soft_nms(const char* op, const at::Tensor& boxes, const at::Tensor& scores,
                    const SoftNmsArgs& args) {
  check_nms(op, boxes, scores, std::nullopt, args.iou_threshold, /*max_output=*/-1);
  TILEWRIGHT_CHECK(op, args.sigma > 0 && std::isfinite(args.sigma),
                   "sigma must be positive and finite, got ", args.sigma);
  // Scores below 0 would grow where they are to shrink.
  TILEWRIGHT_CHECK(op, args.min_score >= 0 && std::isfinite(args.min_score),
                   "min_score must be finite and not negative, got ", args.min_score);
  TILEWRIGHT_CHECK(op,
                   args.method == "gaussian" || args.method == "linear" || args.method == "hard",
                   "method must be gaussian, linear or hard, got ", args.method);
}

void check_soft_nms_backward(const at::Tensor& grad, const at::Tensor& boxes,
                             const at::Tensor& scores, const at::Tensor& keep,
                             const SoftNmsArgs& args) {
  constexpr const char* kOp = "_soft_nms_backward";
  check_soft_nms(kOp, boxes, scores, args);
  check_shape(kOp, "keep", keep, "(M,)", 1);
  TILEWRIGHT_CHECK(kOp, keep.scalar_type() == at::kLong, "keep must be int64, got ",
                   keep.scalar_type());
  check_floating(kOp, "grad", grad);
  TILEWRIGHT_CHECK(kOp, grad.sym_sizes() == keep.sym_sizes(), "grad must have the shape of keep, ",
                   shape_of(keep), ", got ", shape_of(grad));
  check_same_device(kOp, "boxes", boxes, "keep", keep);
  check_same_device(kOp, "boxes", boxes, "grad", grad);
}

at::ScalarType soft_nms_type(const at::Tensor& boxes, const at::Tensor& scores) {
  return boxes.scalar_type() == at::kDouble || scores.scalar_type() == at::kDouble ? at::kDouble
                                                                                   : at::kFloat;
}

at::Tensor soft_nms_boxes(const at::Tensor& boxes, const at::Tensor& index, at::ScalarType type) {
  const at::Tensor rows = index.defined() ? boxes.detach().index_select(0, index) : boxes.detach();
  const at::Tensor corners = rows.to(type).t();  // (4, n)
  const at::Tensor area = (corners[2] - corners[0]) * (corners[3] - corners[1]);
  return at::cat({corners, area.unsqueeze(0)}).contiguous();
}

SoftNmsGradients soft_nms_gradients(const at::Tensor& grad, const at::Tensor& boxes,
                                    const at::Tensor& scores, const at::Tensor& keep) {
  const auto type = soft_nms_type(boxes, scores);
  const auto options = boxes.options().dtype(type);
  SoftNmsGradients g;
  g.boxes = soft_nms_boxes(boxes, keep, type);
  g.scores = scores.detach().index_select(0, keep).to(type).contiguous();
  g.grad = grad.to(type).contiguous();
  g.grad_boxes = at::empty({keep.size(0), 4}, options);
  g.grad_scores = at::empty({keep.size(0)}, options);
  g.weight = at::empty({keep.size(0)}, options);
  return g;
}

std::tuple<at::Tensor, at::Tensor> soft_nms_scatter(const SoftNmsGradients& g,
                                                    const at::Tensor& boxes,
                                                    const at::Tensor& scores,
                                                    const at::Tensor& keep) {
  // No index occurs twice, so nothing is added and the result is the same in every run.
  const at::Tensor grad_boxes = at::zeros(boxes.sizes(), boxes.options())
                                    .index_copy_(0, keep, g.grad_boxes.to(boxes.scalar_type()));
  const at::Tensor grad_scores = at::zeros(scores.sizes(), scores.options())
                                     .index_copy_(0, keep, g.grad_scores.to(scores.scalar_type()));
  return {grad_boxes, grad_scores};
}

}  // namespace tilewright
