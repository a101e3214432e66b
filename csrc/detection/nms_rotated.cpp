// The front of NMS for rotated boxes: schemas, autograd, autocast. As for upright boxes, the shape
// function lives in Python (ops/suppression.py), and nothing is differentiable.
#include "tilewright/detection/nms_rotated.h"

#include <torch/library.h>

#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

// Indices carry no gradient, and boxes keep their dtype: `Guard` skips the key that this is for.
template <class Guard>
struct Below {
  static at::Tensor single(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                           int64_t max_output) {
    const Guard guard;
    return nms_rotated(boxes, scores, iou_threshold, max_output);
  }
  static at::Tensor batched(const at::Tensor& boxes, const at::Tensor& scores,
                            const at::Tensor& idxs, double iou_threshold, int64_t max_output) {
    const Guard guard;
    return batched_nms_rotated(boxes, scores, idxs, iou_threshold, max_output);
  }
  static void add_to(torch::Library& m) {
    m.impl("nms_rotated", &single);
    m.impl("batched_nms_rotated", &batched);
  }
};

template <c10::DispatchKey kKey>
struct WithoutKey {
  c10::impl::ExcludeDispatchKeyGuard guard{kKey};
};

}  // namespace

at::Tensor nms_rotated(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold,
                       int64_t max_output) {
  static const auto op = operator_handle<decltype(nms_rotated)>("tilewright::nms_rotated");
  return op.call(boxes, scores, iou_threshold, max_output);
}

at::Tensor batched_nms_rotated(const at::Tensor& boxes, const at::Tensor& scores,
                               const at::Tensor& idxs, double iou_threshold, int64_t max_output) {
  static const auto op =
      operator_handle<decltype(batched_nms_rotated)>("tilewright::batched_nms_rotated");
  return op.call(boxes, scores, idxs, iou_threshold, max_output);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.set_python_module("tilewright.suppression");
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape,
                                     at::Tag::data_dependent_output};
  m.def(
      "nms_rotated(Tensor boxes, Tensor scores, float iou_threshold, int max_output=-1) -> Tensor",
      tags);
  m.def(
      "batched_nms_rotated(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold, "
      "int max_output=-1) -> Tensor",
      tags);
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  Below<at::AutoDispatchBelowADInplaceOrView>::add_to(m);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  Below<WithoutKey<c10::DispatchKey::AutocastCPU>>::add_to(m);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  Below<WithoutKey<c10::DispatchKey::AutocastCUDA>>::add_to(m);
}

}  // namespace tilewright
