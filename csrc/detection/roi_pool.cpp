// RoIPool's front: schema, autograd, autocast.
#include "tilewright/detection/roi_pool.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using Outputs = std::tuple<at::Tensor, at::Tensor>;

at::Tensor call_backward(const at::Tensor& grad, const at::Tensor& rois, const at::Tensor& argmax,
                         double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                         const c10::SymInt& batch, const c10::SymInt& channels,
                         const c10::SymInt& height, const c10::SymInt& width) {
  static const auto op = operator_handle<at::Tensor(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, double, int64_t, int64_t,
      c10::SymInt, c10::SymInt, c10::SymInt, c10::SymInt)>("tilewright::_roi_pool_backward");
  return op.call(grad, rois, argmax, spatial_scale, pooled_height, pooled_width, batch, channels,
                 height, width);
}

class RoiPoolFunction : public torch::autograd::Function<RoiPoolFunction> {
 public:
  static constexpr bool is_traceable = true;

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& input, const at::Tensor& rois,
                                                double spatial_scale, int64_t pooled_height,
                                                int64_t pooled_width) {
    TILEWRIGHT_CHECK("roi_pool", input.dim() == 4, "input must have shape (N, C, H, W), got ",
                     shape_of(input));
    ctx->saved_data["spatial_scale"] = spatial_scale;
    ctx->saved_data["pooled_height"] = pooled_height;
    ctx->saved_data["pooled_width"] = pooled_width;
    ctx->saved_data["batch"] = input.sym_size(0);
    ctx->saved_data["channels"] = input.sym_size(1);
    ctx->saved_data["height"] = input.sym_size(2);
    ctx->saved_data["width"] = input.sym_size(3);
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [output, argmax] = roi_pool(input, rois, spatial_scale, pooled_height, pooled_width);
    ctx->save_for_backward({rois, argmax});
    ctx->mark_non_differentiable({argmax});
    return {output, argmax};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto& data = ctx->saved_data;
    const auto saved = ctx->get_saved_variables();
    at::Tensor grad_input =
        call_backward(grads[0], saved[0], saved[1], data.at("spatial_scale").toDouble(),
                      data.at("pooled_height").toInt(), data.at("pooled_width").toInt(),
                      data.at("batch").toSymInt(), data.at("channels").toSymInt(),
                      data.at("height").toSymInt(), data.at("width").toSymInt());
    return {grad_input, {}, {}, {}, {}};
  }
};

// What the forward took from `map`, were it pooled at the same pixels: the transpose of the
// backward.
at::Tensor take(const at::Tensor& map, const at::Tensor& rois, const at::Tensor& argmax) {
  if (map.numel() == 0) return at::zeros_like(argmax, map.options());
  const auto count = argmax.options().dtype(at::kLong);
  const at::Tensor image =
      rois.select(1, 0).nan_to_num(0).clamp(0, map.size(0) - 1).to(at::kLong).view({-1, 1, 1, 1});
  const at::Tensor channel = at::arange(map.size(1), count).view({-1, 1, 1});
  const at::Tensor pixel = argmax.clamp_min(0).to(at::kLong);
  const at::Tensor taken =
      map.index({image, channel, pixel.floor_divide(map.size(3)), pixel.remainder(map.size(3))});
  return at::where(argmax >= 0, taken, at::zeros({}, map.options()));
}

class RoiPoolBackwardFunction : public torch::autograd::Function<RoiPoolBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& grad,
                            const at::Tensor& rois, const at::Tensor& argmax, double spatial_scale,
                            int64_t pooled_height, int64_t pooled_width, const c10::SymInt& batch,
                            const c10::SymInt& channels, const c10::SymInt& height,
                            const c10::SymInt& width) {
    ctx->save_for_backward({rois, argmax});
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad, rois, argmax, spatial_scale, pooled_height, pooled_width, batch,
                         channels, height, width);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {take(grads[0], saved[0], saved[1]), {}, {}, {}, {}, {}, {}, {}, {}, {}};
  }
};

Outputs roi_pool_autograd(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                          int64_t pooled_height, int64_t pooled_width) {
  auto outputs = RoiPoolFunction::apply(input, rois, spatial_scale, pooled_height, pooled_width);
  return {outputs[0], outputs[1]};
}

at::Tensor roi_pool_backward_autograd(const at::Tensor& grad, const at::Tensor& rois,
                                      const at::Tensor& argmax, double spatial_scale,
                                      int64_t pooled_height, int64_t pooled_width,
                                      c10::SymInt batch, c10::SymInt channels, c10::SymInt height,
                                      c10::SymInt width) {
  return RoiPoolBackwardFunction::apply(grad, rois, argmax, spatial_scale, pooled_height,
                                        pooled_width, batch, channels, height, width);
}

// Features stay in the dtype that autocast gave them, boxes keep their precision.
template <c10::DispatchKey kKey>
Outputs roi_pool_autocast(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                          int64_t pooled_height, int64_t pooled_width) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return roi_pool(input, boxes_beside(rois, input.scalar_type()), spatial_scale, pooled_height,
                  pooled_width);
}

}  // namespace

Outputs roi_pool(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                 int64_t pooled_height, int64_t pooled_width) {
  static const auto op = operator_handle<decltype(roi_pool)>("tilewright::roi_pool");
  return op.call(input, rois, spatial_scale, pooled_height, pooled_width);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, "
      "int pooled_width) -> (Tensor output, Tensor argmax)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, "
      "int pooled_height, int pooled_width, SymInt batch, SymInt channels, SymInt height, "
      "SymInt width) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("roi_pool", &roi_pool_autograd);
  m.impl("_roi_pool_backward", &roi_pool_backward_autograd);
}

TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("roi_pool", &roi_pool_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("roi_pool", &roi_pool_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
