// Position-sensitive RoIAlign's front: schema, autograd, autocast.
#include "tilewright/detection/ps_roi_align.h"

#include "tilewright/core/autocast.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/ps_roi_autograd.h"

namespace tilewright {
namespace {

using Outputs = std::tuple<at::Tensor, at::Tensor>;

struct PsRoiAlignOp {
  static constexpr const char* kName = "ps_roi_align";

  static Outputs forward(const at::Tensor& input, const at::Tensor& rois, const PsRoiCall& call) {
    return ps_roi_align(input, rois, call.spatial_scale, call.pooled_height, call.pooled_width,
                        call.sampling_ratio);
  }

  static at::Tensor backward(const at::Tensor& grad, const at::Tensor& rois, const PsRoiCall& call,
                             const c10::SymInt& batch, const c10::SymInt& channels,
                             const c10::SymInt& height, const c10::SymInt& width) {
    static const auto op =
        operator_handle<at::Tensor(const at::Tensor&, const at::Tensor&, double, int64_t, int64_t,
                                   c10::SymInt, c10::SymInt, c10::SymInt, c10::SymInt, int64_t)>(
            "tilewright::_ps_roi_align_backward");
    return op.call(grad, rois, call.spatial_scale, call.pooled_height, call.pooled_width, batch,
                   channels, height, width, call.sampling_ratio);
  }
};

Outputs ps_roi_align_autograd(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                              int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
  return ps_roi_autograd<PsRoiAlignOp>(
      input, rois, {spatial_scale, pooled_height, pooled_width, sampling_ratio});
}

at::Tensor ps_roi_align_backward_autograd(const at::Tensor& grad, const at::Tensor& rois,
                                          double spatial_scale, int64_t pooled_height,
                                          int64_t pooled_width, c10::SymInt batch,
                                          c10::SymInt channels, c10::SymInt height,
                                          c10::SymInt width, int64_t sampling_ratio) {
  const PsRoiCall call{spatial_scale, pooled_height, pooled_width, sampling_ratio};
  return PsRoiBackwardFunction<PsRoiAlignOp>::apply(grad, rois, call, batch, channels, height,
                                                    width);
}

// Features stay in the dtype that autocast gave them, boxes keep their precision.
template <c10::DispatchKey kKey>
Outputs ps_roi_align_autocast(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                              int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return ps_roi_align(input, boxes_beside(rois, input.scalar_type()), spatial_scale, pooled_height,
                      pooled_width, sampling_ratio);
}

}  // namespace

Outputs ps_roi_align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                     int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
  static const auto op = operator_handle<decltype(ps_roi_align)>("tilewright::ps_roi_align");
  return op.call(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, "
      "int pooled_width, int sampling_ratio=-1) -> (Tensor output, Tensor channel_mapping)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_ps_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, int pooled_height, "
      "int pooled_width, SymInt batch, SymInt channels, SymInt height, SymInt width, int "
      "sampling_ratio) "
      "-> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("ps_roi_align", &ps_roi_align_autograd);
  m.impl("_ps_roi_align_backward", &ps_roi_align_backward_autograd);
}

TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("ps_roi_align", &ps_roi_align_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("ps_roi_align", &ps_roi_align_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
