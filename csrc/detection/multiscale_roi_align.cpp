// The front of RoIAlign over a feature pyramid: schema, autograd, autocast. Its kernels
// are RoIAlign's.
#include "tilewright/detection/multiscale_roi_align.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

std::vector<at::Tensor> call_backward(const at::Tensor& grad, const at::Tensor& rois,
                                      at::ArrayRef<double> spatial_scales, int64_t pooled_height,
                                      int64_t pooled_width, const c10::SymInt& batch,
                                      const c10::SymInt& channels, c10::SymIntArrayRef heights,
                                      c10::SymIntArrayRef widths, int64_t sampling_ratio,
                                      bool aligned, int64_t canonical_scale,
                                      int64_t canonical_level) {
  static const auto op = operator_handle<std::vector<at::Tensor>(
      const at::Tensor&, const at::Tensor&, at::ArrayRef<double>, int64_t, int64_t, c10::SymInt,
      c10::SymInt, c10::SymIntArrayRef, c10::SymIntArrayRef, int64_t, bool, int64_t, int64_t)>(
      "tilewright::_multiscale_roi_align_backward");
  return op.call(grad, rois, spatial_scales, pooled_height, pooled_width, batch, channels, heights,
                 widths, sampling_ratio, aligned, canonical_scale, canonical_level);
}

// The arguments that both directions keep for the other, under one name each.
void save_arguments(torch::autograd::AutogradContext* ctx, at::ArrayRef<double> spatial_scales,
                    int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                    bool aligned, int64_t canonical_scale, int64_t canonical_level) {
  ctx->saved_data["spatial_scales"] = spatial_scales.vec();
  ctx->saved_data["pooled_height"] = pooled_height;
  ctx->saved_data["pooled_width"] = pooled_width;
  ctx->saved_data["sampling_ratio"] = sampling_ratio;
  ctx->saved_data["aligned"] = aligned;
  ctx->saved_data["canonical_scale"] = canonical_scale;
  ctx->saved_data["canonical_level"] = canonical_level;
}

std::vector<c10::SymInt> to_sym_ints(const c10::IValue& list) {
  std::vector<c10::SymInt> sizes;
  for (const c10::IValue& size : list.toListRef()) sizes.push_back(size.toSymInt());
  return sizes;
}

class MultiscaleRoiAlignFunction : public torch::autograd::Function<MultiscaleRoiAlignFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(torch::autograd::AutogradContext* ctx, at::TensorList features,
                            const at::Tensor& rois, at::ArrayRef<double> spatial_scales,
                            int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                            bool aligned, int64_t canonical_scale, int64_t canonical_level) {
    ctx->save_for_backward({rois});
    save_arguments(ctx, spatial_scales, pooled_height, pooled_width, sampling_ratio, aligned,
                   canonical_scale, canonical_level);
    TILEWRIGHT_CHECK("multiscale_roi_align", !features.empty(),
                     "expected 1 to 16 feature maps, got 0");
    c10::impl::GenericList heights(c10::AnyType::get()), widths(c10::AnyType::get());
    for (const at::Tensor& map : features) {
      check_shape("multiscale_roi_align", "input", map, "(N, C, H, W)", 4);
      heights.push_back(map.sym_size(2));
      widths.push_back(map.sym_size(3));
    }
    ctx->saved_data["batch"] = features[0].sym_size(0);
    ctx->saved_data["channels"] = features[0].sym_size(1);
    ctx->saved_data["heights"] = heights;
    ctx->saved_data["widths"] = widths;
    at::AutoDispatchBelowADInplaceOrView guard;
    return multiscale_roi_align(features, rois, spatial_scales, pooled_height, pooled_width,
                                sampling_ratio, aligned, canonical_scale, canonical_level);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto& data = ctx->saved_data;
    const std::vector<c10::SymInt> heights = to_sym_ints(data.at("heights"));
    const std::vector<c10::SymInt> widths = to_sym_ints(data.at("widths"));
    torch::autograd::variable_list result = call_backward(
        grads[0], ctx->get_saved_variables()[0], data.at("spatial_scales").toDoubleVector(),
        data.at("pooled_height").toInt(), data.at("pooled_width").toInt(),
        data.at("batch").toSymInt(), data.at("channels").toSymInt(), heights, widths,
        data.at("sampling_ratio").toInt(), data.at("aligned").toBool(),
        data.at("canonical_scale").toInt(), data.at("canonical_level").toInt());
    result.resize(heights.size() + 8);  // nothing for rois and the numbers
    return result;
  }
};

class MultiscaleRoiAlignBackwardFunction
    : public torch::autograd::Function<MultiscaleRoiAlignBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static torch::autograd::variable_list forward(
      torch::autograd::AutogradContext* ctx, const at::Tensor& grad, const at::Tensor& rois,
      at::ArrayRef<double> spatial_scales, int64_t pooled_height, int64_t pooled_width,
      const c10::SymInt& batch, const c10::SymInt& channels, c10::SymIntArrayRef heights,
      c10::SymIntArrayRef widths, int64_t sampling_ratio, bool aligned, int64_t canonical_scale,
      int64_t canonical_level) {
    ctx->save_for_backward({rois});
    save_arguments(ctx, spatial_scales, pooled_height, pooled_width, sampling_ratio, aligned,
                   canonical_scale, canonical_level);
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad, rois, spatial_scales, pooled_height, pooled_width, batch, channels,
                         heights, widths, sampling_ratio, aligned, canonical_scale,
                         canonical_level);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto& data = ctx->saved_data;
    at::Tensor grad_grad = multiscale_roi_align(
        grads, ctx->get_saved_variables()[0], data.at("spatial_scales").toDoubleVector(),
        data.at("pooled_height").toInt(), data.at("pooled_width").toInt(),
        data.at("sampling_ratio").toInt(), data.at("aligned").toBool(),
        data.at("canonical_scale").toInt(), data.at("canonical_level").toInt());
    return {grad_grad, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  }
};

at::Tensor multiscale_roi_align_autograd(at::TensorList features, const at::Tensor& rois,
                                         at::ArrayRef<double> spatial_scales, int64_t pooled_height,
                                         int64_t pooled_width, int64_t sampling_ratio, bool aligned,
                                         int64_t canonical_scale, int64_t canonical_level) {
  return MultiscaleRoiAlignFunction::apply(features, rois, spatial_scales, pooled_height,
                                           pooled_width, sampling_ratio, aligned, canonical_scale,
                                           canonical_level);
}

std::vector<at::Tensor> multiscale_roi_align_backward_autograd(
    const at::Tensor& grad, const at::Tensor& rois, at::ArrayRef<double> spatial_scales,
    int64_t pooled_height, int64_t pooled_width, c10::SymInt batch, c10::SymInt channels,
    c10::SymIntArrayRef heights, c10::SymIntArrayRef widths, int64_t sampling_ratio, bool aligned,
    int64_t canonical_scale, int64_t canonical_level) {
  return MultiscaleRoiAlignBackwardFunction::apply(
      grad, rois, spatial_scales, pooled_height, pooled_width, batch, channels, heights, widths,
      sampling_ratio, aligned, canonical_scale, canonical_level);
}

template <c10::DispatchKey kKey>
at::Tensor multiscale_roi_align_autocast(at::TensorList features, const at::Tensor& rois,
                                         at::ArrayRef<double> spatial_scales, int64_t pooled_height,
                                         int64_t pooled_width, int64_t sampling_ratio, bool aligned,
                                         int64_t canonical_scale, int64_t canonical_level) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  const at::Tensor boxes = features.empty() ? rois : boxes_beside(rois, features[0].scalar_type());
  return multiscale_roi_align(features, boxes, spatial_scales, pooled_height, pooled_width,
                              sampling_ratio, aligned, canonical_scale, canonical_level);
}

}  // namespace

at::Tensor multiscale_roi_align(at::TensorList features, const at::Tensor& rois,
                                at::ArrayRef<double> spatial_scales, int64_t pooled_height,
                                int64_t pooled_width, int64_t sampling_ratio, bool aligned,
                                int64_t canonical_scale, int64_t canonical_level) {
  static const auto op =
      operator_handle<decltype(multiscale_roi_align)>("tilewright::multiscale_roi_align");
  return op.call(features, rois, spatial_scales, pooled_height, pooled_width, sampling_ratio,
                 aligned, canonical_scale, canonical_level);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "multiscale_roi_align(Tensor[] features, Tensor rois, float[] spatial_scales, "
      "int pooled_height, int pooled_width, int sampling_ratio=2, bool aligned=False, "
      "int canonical_scale=224, int canonical_level=4) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_multiscale_roi_align_backward(Tensor grad, Tensor rois, float[] spatial_scales, "
      "int pooled_height, int pooled_width, SymInt batch, SymInt channels, SymInt[] heights, "
      "SymInt[] widths, int sampling_ratio, bool aligned, int canonical_scale, "
      "int canonical_level) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("multiscale_roi_align", &multiscale_roi_align_autograd);
  m.impl("_multiscale_roi_align_backward", &multiscale_roi_align_backward_autograd);
}

TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("multiscale_roi_align", &multiscale_roi_align_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("multiscale_roi_align", &multiscale_roi_align_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
