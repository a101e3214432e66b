// Position-sensitive RoIPool's front: schema, autograd, autocast.
#include "tilewright/detection/ps_roi_pool.h"

#include "tilewright/core/autocast.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/detection/ps_roi_autograd.h"

namespace tilewright {
namespace {

using Outputs = std::tuple<at::Tensor, at::Tensor>;

struct PsRoiPoolOp {
  static constexpr const char* kName = "ps_roi_pool";

  static Outputs forward(const at::Tensor& input, const at::Tensor& rois, const PsRoiCall& call) {
    return ps_roi_pool(input, rois, call.spatial_scale, call.pooled_height, call.pooled_width);
  }

  static at::Tensor backward(const at::Tensor& grad, const at::Tensor& rois, const PsRoiCall& call,
                             const c10::SymInt& batch, const c10::SymInt& channels,
                             const c10::SymInt& height, const c10::SymInt& width) {
    static const auto op =
        operator_handle<at::Tensor(const at::Tensor&, const at::Tensor&, double, int64_t, int64_t,
                                   c10::SymInt, c10::SymInt, c10::SymInt, c10::SymInt)>(
            "tilewright::_ps_roi_pool_backward");
    return op.call(grad, rois, call.spatial_scale, call.pooled_height, call.pooled_width, batch,
                   channels, height, width);
  }
};

Outputs ps_roi_pool_autograd(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                             int64_t pooled_height, int64_t pooled_width) {
  return ps_roi_autograd<PsRoiPoolOp>(input, rois, {spatial_scale, pooled_height, pooled_width, 0});
}

at::Tensor ps_roi_pool_backward_autograd(const at::Tensor& grad, const at::Tensor& rois,
                                         double spatial_scale, int64_t pooled_height,
                                         int64_t pooled_width, c10::SymInt batch,
                                         c10::SymInt channels, c10::SymInt height,
                                         c10::SymInt width) {
  const PsRoiCall call{spatial_scale, pooled_height, pooled_width, 0};
  return PsRoiBackwardFunction<PsRoiPoolOp>::apply(grad, rois, call, batch, channels, height,
                                                   width);
}

// Features stay in the dtype that autocast gave them, boxes keep their precision.
template <c10::DispatchKey kKey>
Outputs ps_roi_pool_autocast(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                             int64_t pooled_height, int64_t pooled_width) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return ps_roi_pool(input, boxes_beside(rois, input.scalar_type()), spatial_scale, pooled_height,
                     pooled_width);
}

}  // namespace

Outputs ps_roi_pool(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                    int64_t pooled_height, int64_t pooled_width) {
  static const auto op = operator_handle<decltype(ps_roi_pool)>("tilewright::ps_roi_pool");
  return op.call(input, rois, spatial_scale, pooled_height, pooled_width);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, "
      "int pooled_width) -> (Tensor output, Tensor channel_mapping)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_ps_roi_pool_backward(Tensor grad, Tensor rois, float spatial_scale, int pooled_height, "
      "int pooled_width, SymInt batch, SymInt channels, SymInt height, SymInt width) "
      "-> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("ps_roi_pool", &ps_roi_pool_autograd);
  m.impl("_ps_roi_pool_backward", &ps_roi_pool_backward_autograd);
}

TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("ps_roi_pool", &ps_roi_pool_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("ps_roi_pool", &ps_roi_pool_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
