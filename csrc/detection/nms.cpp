// The front of NMS: schemas and autocast. Results have as many rows as the data decide, so the
// shape function needs unbacked sizes and lives in Python (ops/suppression.py); nothing here is
// differentiable.
#include "tilewright/detection/nms.h"

#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

template <c10::DispatchKey kKey>
at::Tensor nms_autocast(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                        int64_t max_output) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return nms(boxes, scores, iou_threshold, max_output);
}

template <c10::DispatchKey kKey>
at::Tensor batched_nms_autocast(const at::Tensor& boxes, const at::Tensor& scores,
                                const at::Tensor& idxs, double iou_threshold, int64_t max_output) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return batched_nms(boxes, scores, idxs, iou_threshold, max_output);
}

// Indices carry no gradient.
at::Tensor nms_autograd(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                        int64_t max_output) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return nms(boxes, scores, iou_threshold, max_output);
}

at::Tensor batched_nms_autograd(const at::Tensor& boxes, const at::Tensor& scores,
                                const at::Tensor& idxs, double iou_threshold, int64_t max_output) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return batched_nms(boxes, scores, idxs, iou_threshold, max_output);
}

}  // namespace

at::Tensor nms(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
               int64_t max_output) {
  static const auto op = operator_handle<decltype(nms)>("tilewright::nms");
  return op.call(boxes, scores, iou_threshold, max_output);
}

at::Tensor batched_nms(const at::Tensor& boxes, const at::Tensor& scores, const at::Tensor& idxs,
                       double iou_threshold, int64_t max_output) {
  static const auto op = operator_handle<decltype(batched_nms)>("tilewright::batched_nms");
  return op.call(boxes, scores, idxs, iou_threshold, max_output);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.set_python_module("tilewright.suppression");
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape,
                                     at::Tag::data_dependent_output};
  m.def("nms(Tensor boxes, Tensor scores, float iou_threshold, int max_output=-1) -> Tensor", tags);
  m.def(
      "batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold, "
      "int max_output=-1) -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("nms", &nms_autograd);
  m.impl("batched_nms", &batched_nms_autograd);
}

TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("nms", &nms_autocast<c10::DispatchKey::AutocastCPU>);
  m.impl("batched_nms", &batched_nms_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("nms", &nms_autocast<c10::DispatchKey::AutocastCUDA>);
  m.impl("batched_nms", &batched_nms_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
