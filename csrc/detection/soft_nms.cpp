// Soft-NMS's front: schemas, autograd, autocast, the shapes of the backward pass. The forward's
// shape depends on the data, so its shape function lives in Python (ops/suppression.py).
#include "tilewright/detection/soft_nms.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/soft_nms_data.h"

namespace tilewright {
namespace {

using Pair = std::tuple<at::Tensor, at::Tensor>;

Pair call_backward(const at::Tensor& grad, const at::Tensor& boxes, const at::Tensor& scores,
                   const at::Tensor& keep, double iou_threshold, double sigma,
                   c10::string_view method) {
  static const auto op =
      operator_handle<Pair(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, double, double, c10::string_view)>(
          "tilewright::_soft_nms_backward");
  return op.call(grad, boxes, scores, keep, iou_threshold, sigma, method);
}

class SoftNmsFunction : public torch::autograd::Function<SoftNmsFunction> {
 public:
  static constexpr bool is_traceable = true;

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& boxes, const at::Tensor& scores,
                                                double iou_threshold, double sigma,
                                                double min_score, const std::string& method) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [keep, kept_scores] =
        soft_nms(boxes, scores, iou_threshold, sigma, min_score, method);
    ctx->save_for_backward({boxes, scores, keep});
    ctx->saved_data["iou_threshold"] = iou_threshold;
    ctx->saved_data["sigma"] = sigma;
    ctx->saved_data["method"] = method;
    ctx->mark_non_differentiable({keep});
    return {keep, kept_scores};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [grad_boxes, grad_scores] = call_backward(
        grads[1], saved[0], saved[1], saved[2], ctx->saved_data.at("iou_threshold").toDouble(),
        ctx->saved_data.at("sigma").toDouble(), ctx->saved_data.at("method").toStringRef());
    return {grad_boxes, grad_scores, {}, {}, {}, {}};
  }
};

// Its own backward only says that there is none.
class SoftNmsBackwardFunction : public torch::autograd::Function<SoftNmsBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext*,
                                                const at::Tensor& grad, const at::Tensor& boxes,
                                                const at::Tensor& scores, const at::Tensor& keep,
                                                double iou_threshold, double sigma,
                                                const std::string& method) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [grad_boxes, grad_scores] =
        call_backward(grad, boxes, scores, keep, iou_threshold, sigma, method);
    return {grad_boxes, grad_scores};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
    TILEWRIGHT_CHECK("soft_nms", false, "has no second derivative");
  }
};

Pair soft_nms_autograd(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                       double sigma, double min_score, c10::string_view method) {
  const auto out =
      SoftNmsFunction::apply(boxes, scores, iou_threshold, sigma, min_score, std::string(method));
  return {out[0], out[1]};
}

Pair soft_nms_backward_autograd(const at::Tensor& grad, const at::Tensor& boxes,
                                const at::Tensor& scores, const at::Tensor& keep,
                                double iou_threshold, double sigma, c10::string_view method) {
  const auto out = SoftNmsBackwardFunction::apply(grad, boxes, scores, keep, iou_threshold, sigma,
                                                  std::string(method));
  return {out[0], out[1]};
}

// Boxes and scores keep the dtypes that they have.
template <c10::DispatchKey kKey>
Pair soft_nms_autocast(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                       double sigma, double min_score, c10::string_view method) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return soft_nms(boxes, scores, iou_threshold, sigma, min_score, method);
}

Pair soft_nms_backward_meta(const at::Tensor& grad, const at::Tensor& boxes,
                            const at::Tensor& scores, const at::Tensor& keep, double iou_threshold,
                            double sigma, c10::string_view method) {
  check_soft_nms_backward(grad, boxes, scores, keep, {iou_threshold, sigma, 0, method});
  return {at::empty_symint(boxes.sym_sizes(), boxes.options()),
          at::empty_symint(scores.sym_sizes(), scores.options())};
}

}  // namespace

Pair soft_nms(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold, double sigma,
              double min_score, c10::string_view method) {
  static const auto op = operator_handle<decltype(soft_nms)>("tilewright::soft_nms");
  return op.call(boxes, scores, iou_threshold, sigma, min_score, method);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.set_python_module("tilewright.suppression");
  m.def(
      "soft_nms(Tensor boxes, Tensor scores, float iou_threshold=0.3, float sigma=0.5, "
      "float min_score=0.001, str method=\"gaussian\") -> (Tensor keep, Tensor scores)",
      {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape, at::Tag::data_dependent_output});
  m.def(
      "_soft_nms_backward(Tensor grad, Tensor boxes, Tensor scores, Tensor keep, "
      "float iou_threshold, float sigma, str method) -> (Tensor grad_boxes, Tensor grad_scores)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("soft_nms", &soft_nms_autograd);
  m.impl("_soft_nms_backward", &soft_nms_backward_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) { m.impl("_soft_nms_backward", &soft_nms_backward_meta); }
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("soft_nms", &soft_nms_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("soft_nms", &soft_nms_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
