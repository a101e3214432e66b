// The schema and the C++ call of RoIAlign over rotated boxes.
#include "tilewright/detection/roi_align_rotated.h"

#include "tilewright/detection/roi_align_front.h"

namespace tilewright {
namespace {

struct RoiAlignRotated {
  static constexpr const char *kName = "roi_align_rotated",
                              *kOperator = "tilewright::roi_align_rotated";
  static constexpr const char *kBackwardName = "_roi_align_rotated_backward",
                              *kBackwardOperator = "tilewright::_roi_align_rotated_backward";
};

}  // namespace

at::Tensor roi_align_rotated(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                             int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                             bool aligned) {
  return RoiAlignFront<RoiAlignRotated>::call(input, rois, spatial_scale, pooled_height,
                                              pooled_width, sampling_ratio, aligned);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "roi_align_rotated(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int "
      "pooled_width, int sampling_ratio=-1, bool aligned=True) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_roi_align_rotated_backward(Tensor grad, Tensor rois, float spatial_scale, int "
      "pooled_height, "
      "int pooled_width, SymInt batch, SymInt channels, SymInt height, SymInt width, "
      "int sampling_ratio, bool aligned) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) { RoiAlignFront<RoiAlignRotated>::add_autograd(m); }
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  RoiAlignFront<RoiAlignRotated>::add_autocast<c10::DispatchKey::AutocastCPU>(m);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  RoiAlignFront<RoiAlignRotated>::add_autocast<c10::DispatchKey::AutocastCUDA>(m);
}

}  // namespace tilewright
