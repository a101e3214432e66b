// RoIAlign's front: schema, autograd, autocast.
#include "tilewright/detection/roi_align.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

at::Tensor call_backward(const at::Tensor& grad, const at::Tensor& rois, double spatial_scale,
                         int64_t pooled_height, int64_t pooled_width, const c10::SymInt& batch,
                         const c10::SymInt& channels, const c10::SymInt& height,
                         const c10::SymInt& width, int64_t sampling_ratio, bool aligned) {
  static const auto op = operator_handle<at::Tensor(
      const at::Tensor&, const at::Tensor&, double, int64_t, int64_t, c10::SymInt, c10::SymInt,
      c10::SymInt, c10::SymInt, int64_t, bool)>("tilewright::_roi_align_backward");
  return op.call(grad, rois, spatial_scale, pooled_height, pooled_width, batch, channels, height,
                 width, sampling_ratio, aligned);
}

// The operator is linear in its input: the backward is the transposed map, and the backward of that
// is the forward. Boxes are data, not variables.
class RoiAlignFunction : public torch::autograd::Function<RoiAlignFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& input,
                            const at::Tensor& rois, double spatial_scale, int64_t pooled_height,
                            int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
    ctx->save_for_backward({rois});
    ctx->saved_data["spatial_scale"] = spatial_scale;
    ctx->saved_data["pooled_height"] = pooled_height;
    ctx->saved_data["pooled_width"] = pooled_width;
    ctx->saved_data["sampling_ratio"] = sampling_ratio;
    ctx->saved_data["aligned"] = aligned;
    TILEWRIGHT_CHECK("roi_align", input.dim() == 4, "input must have shape (N, C, H, W), got ",
                     shape_of(input));
    ctx->saved_data["batch"] = input.sym_size(0);
    ctx->saved_data["channels"] = input.sym_size(1);
    ctx->saved_data["height"] = input.sym_size(2);
    ctx->saved_data["width"] = input.sym_size(3);
    at::AutoDispatchBelowADInplaceOrView guard;
    return roi_align(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio,
                     aligned);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto& data = ctx->saved_data;
    at::Tensor grad_input =
        call_backward(grads[0], ctx->get_saved_variables()[0], data.at("spatial_scale").toDouble(),
                      data.at("pooled_height").toInt(), data.at("pooled_width").toInt(),
                      data.at("batch").toSymInt(), data.at("channels").toSymInt(),
                      data.at("height").toSymInt(), data.at("width").toSymInt(),
                      data.at("sampling_ratio").toInt(), data.at("aligned").toBool());
    return {grad_input, {}, {}, {}, {}, {}, {}};
  }
};

class RoiAlignBackwardFunction : public torch::autograd::Function<RoiAlignBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& grad,
                            const at::Tensor& rois, double spatial_scale, int64_t pooled_height,
                            int64_t pooled_width, const c10::SymInt& batch,
                            const c10::SymInt& channels, const c10::SymInt& height,
                            const c10::SymInt& width, int64_t sampling_ratio, bool aligned) {
    ctx->save_for_backward({rois});
    ctx->saved_data["spatial_scale"] = spatial_scale;
    ctx->saved_data["pooled_height"] = pooled_height;
    ctx->saved_data["pooled_width"] = pooled_width;
    ctx->saved_data["sampling_ratio"] = sampling_ratio;
    ctx->saved_data["aligned"] = aligned;
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad, rois, spatial_scale, pooled_height, pooled_width, batch, channels,
                         height, width, sampling_ratio, aligned);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto& data = ctx->saved_data;
    at::Tensor grad_grad =
        roi_align(grads[0], ctx->get_saved_variables()[0], data.at("spatial_scale").toDouble(),
                  data.at("pooled_height").toInt(), data.at("pooled_width").toInt(),
                  data.at("sampling_ratio").toInt(), data.at("aligned").toBool());
    return {grad_grad, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  }
};

at::Tensor roi_align_autograd(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                              int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                              bool aligned) {
  return RoiAlignFunction::apply(input, rois, spatial_scale, pooled_height, pooled_width,
                                 sampling_ratio, aligned);
}

at::Tensor roi_align_backward_autograd(const at::Tensor& grad, const at::Tensor& rois,
                                       double spatial_scale, int64_t pooled_height,
                                       int64_t pooled_width, c10::SymInt batch,
                                       c10::SymInt channels, c10::SymInt height, c10::SymInt width,
                                       int64_t sampling_ratio, bool aligned) {
  return RoiAlignBackwardFunction::apply(grad, rois, spatial_scale, pooled_height, pooled_width,
                                         batch, channels, height, width, sampling_ratio, aligned);
}

// Features stay in the dtype that autocast gave them, boxes keep their precision.
template <c10::DispatchKey kKey>
at::Tensor roi_align_autocast(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                              int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                              bool aligned) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return roi_align(input, boxes_beside(rois, input.scalar_type()), spatial_scale, pooled_height,
                   pooled_width, sampling_ratio, aligned);
}

}  // namespace

at::Tensor roi_align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                     int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                     bool aligned) {
  static const auto op = operator_handle<decltype(roi_align)>("tilewright::roi_align");
  return op.call(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int "
      "pooled_width, "
      "int sampling_ratio=-1, bool aligned=False) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, int pooled_height, "
      "int pooled_width, SymInt batch, SymInt channels, SymInt height, SymInt width, "
      "int sampling_ratio, bool aligned) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("roi_align", &roi_align_autograd);
  m.impl("_roi_align_backward", &roi_align_backward_autograd);
}

TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("roi_align", &roi_align_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("roi_align", &roi_align_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
