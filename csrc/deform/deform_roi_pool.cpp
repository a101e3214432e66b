// Deformable RoI pooling's front: two public operators over one, `_deform_pool`, whose shapes,
// autograd and autocast are here.
#include "tilewright/deform/deform_roi_pool.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/deform/deform_pool_args.h"
#include "tilewright/deform/deform_pool_composite.h"
#include "tilewright/detection/roi_align.h"

namespace tilewright {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::array<int64_t, 2>;

Tensor deform_pool(const Tensor& input, const Tensor& rois, const Tensor& offset,
                   double spatial_scale, at::IntArrayRef pooled, at::IntArrayRef parts,
                   int64_t group_size, int64_t samples, double gamma, bool position_sensitive) {
  static const auto op = operator_handle<decltype(deform_pool)>("tilewright::_deform_pool");
  return op.call(input, rois, offset, spatial_scale, pooled, parts, group_size, samples, gamma,
                 position_sensitive);
}

DeformPoolGrads deform_pool_backward(const Tensor& grad, const Tensor& input, const Tensor& rois,
                                     const Tensor& offset, double spatial_scale,
                                     at::IntArrayRef pooled, at::IntArrayRef parts,
                                     int64_t group_size, int64_t samples, double gamma,
                                     bool position_sensitive, DeformPoolNeeds needs) {
  static const auto op =
      operator_handle<decltype(deform_pool_backward)>("tilewright::_deform_pool_backward");
  return op.call(grad, input, rois, offset, spatial_scale, pooled, parts, group_size, samples,
                 gamma, position_sensitive, needs);
}

class DeformPoolFunction : public torch::autograd::Function<DeformPoolFunction> {
 public:
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& rois,
                        const Tensor& offset, const DeformPoolArgs& args) {
    auto& data = ctx->saved_data;
    data["spatial_scale"] = args.spatial_scale;
    data["pooled"] = at::IntArrayRef(args.pooled);
    data["parts"] = at::IntArrayRef(args.parts);
    data["group_size"] = args.group_size;
    data["samples"] = args.samples;
    data["gamma"] = args.gamma;
    data["position_sensitive"] = args.position_sensitive;
    ctx->save_for_backward({input, rois, offset});
    at::AutoDispatchBelowADInplaceOrView guard;
    return deform_pool(input, rois, offset, args.spatial_scale, args.pooled, args.parts,
                       args.group_size, args.samples, args.gamma, args.position_sensitive);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& data = ctx->saved_data;
    const DeformPoolArgs args = deform_pool_args(
        data.at("spatial_scale").toDouble(), data.at("pooled").toIntVector(),
        data.at("parts").toIntVector(), data.at("group_size").toInt(), data.at("samples").toInt(),
        data.at("gamma").toDouble(), data.at("position_sensitive").toBool());
    const DeformPoolNeeds needs{ctx->needs_input_grad(0), ctx->needs_input_grad(2)};
    const auto [grad_input, grad_offset] =
        at::GradMode::is_enabled()  // create_graph: the gradients are differentiated again
            ? deform_pool_composite_backward(args, grads[0], saved[0], saved[1], saved[2], needs)
            : deform_pool_backward(grads[0], saved[0], saved[1], saved[2], args.spatial_scale,
                                   args.pooled, args.parts, args.group_size, args.samples,
                                   args.gamma, args.position_sensitive, needs);
    return {needs[0] ? grad_input : Tensor(), {}, needs[1] ? grad_offset : Tensor(), {}};
  }
};

Tensor deform_pool_autograd(const Tensor& input, const Tensor& rois, const Tensor& offset,
                            double spatial_scale, at::IntArrayRef pooled, at::IntArrayRef parts,
                            int64_t group_size, int64_t samples, double gamma,
                            bool position_sensitive) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  return DeformPoolFunction::apply(input, rois, offset, args);
}

// The backward's own backward only says where second derivatives come from.
class DeformPoolBackwardFunction : public torch::autograd::Function<DeformPoolBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext*, const Tensor& grad, const Tensor& input,
                               const Tensor& rois, const Tensor& offset, const DeformPoolArgs& args,
                               DeformPoolNeeds needs) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [grad_input, grad_offset] = deform_pool_backward(
        grad, input, rois, offset, args.spatial_scale, args.pooled, args.parts, args.group_size,
        args.samples, args.gamma, args.position_sensitive, needs);
    return {grad_input, grad_offset};
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TILEWRIGHT_CHECK("_deform_pool_backward", false,
                     "is not differentiable; second derivatives come from deform_roi_pool and "
                     "deform_ps_roi_pool with create_graph=True");
  }
};

DeformPoolGrads deform_pool_backward_autograd(const Tensor& grad, const Tensor& input,
                                              const Tensor& rois, const Tensor& offset,
                                              double spatial_scale, at::IntArrayRef pooled,
                                              at::IntArrayRef parts, int64_t group_size,
                                              int64_t samples, double gamma,
                                              bool position_sensitive, DeformPoolNeeds needs) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  const auto grads = DeformPoolBackwardFunction::apply(grad, input, rois, offset, args, needs);
  return {grads[0], grads[1]};
}

// Features stay in the dtype that autocast gave them, boxes and moves keep their precision.
template <c10::DispatchKey kKey>
Tensor deform_pool_autocast(const Tensor& input, const Tensor& rois, const Tensor& offset,
                            double spatial_scale, at::IntArrayRef pooled, at::IntArrayRef parts,
                            int64_t group_size, int64_t samples, double gamma,
                            bool position_sensitive) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  return deform_pool(input, boxes_beside(rois, input.scalar_type()),
                     boxes_beside(offset, input.scalar_type()), spatial_scale, pooled, parts,
                     group_size, samples, gamma, position_sensitive);
}

Tensor deform_pool_meta(const Tensor& input, const Tensor& rois, const Tensor& offset,
                        double spatial_scale, at::IntArrayRef pooled, at::IntArrayRef parts,
                        int64_t group_size, int64_t samples, double gamma,
                        bool position_sensitive) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  check_deform_pool(args, input, rois, offset);
  return deform_pool_output(args, input, rois);
}

DeformPoolGrads deform_pool_backward_meta(const Tensor& grad, const Tensor& input,
                                          const Tensor& rois, const Tensor& offset,
                                          double spatial_scale, at::IntArrayRef pooled,
                                          at::IntArrayRef parts, int64_t group_size,
                                          int64_t samples, double gamma, bool position_sensitive,
                                          DeformPoolNeeds needs) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  check_deform_pool_backward(args, grad, input, rois, offset);
  return deform_pool_grads(input, offset, needs);
}

Tensor deform_roi_pool_composed(const Tensor& input, const Tensor& rois,
                                const std::optional<Tensor>& offset, double spatial_scale,
                                int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                                double gamma) {
  const Pair bins{pooled_height, pooled_width};
  if (!offset.has_value()) {
    const DeformPoolArgs args{spatial_scale, bins, bins, 1, sampling_ratio, gamma, false};
    check_unmoved_pool(args, input, rois);
    check_images(args.op(), input, rois);
    return roi_align(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, true);
  }
  return deform_pool(input, rois, *offset, spatial_scale, bins, bins, 1, sampling_ratio, gamma,
                     false);
}

Tensor deform_ps_roi_pool_composed(const Tensor& input, const Tensor& rois,
                                   const std::optional<Tensor>& offset, double spatial_scale,
                                   int64_t output_dim, int64_t group_size, int64_t pooled_size,
                                   int64_t part_size, int64_t sample_per_part, double trans_std) {
  const char* op = "deform_ps_roi_pool";
  check_given(op, "input", input);
  check_given(op, "rois", rois);
  constexpr int64_t kMost = int64_t(1) << 20;  // products of three stay within 64 bits
  TILEWRIGHT_CHECK(op,
                   output_dim > 0 && output_dim <= kMost && group_size > 0 && group_size <= kMost,
                   "output_dim and group_size must lie in [1, ", kMost, "], got ", output_dim,
                   " and ", group_size);
  TILEWRIGHT_CHECK(op,
                   input.dim() == 4 && input.sym_size(1) == output_dim * group_size * group_size,
                   "input must have shape (N, output_dim * group_size^2 = ",
                   output_dim * group_size * group_size, ", H, W), got ", shape_of(input));
  const Pair pooled{pooled_size, pooled_size}, parts{part_size, part_size};
  if (offset.has_value()) {
    return deform_pool(input, rois, *offset, spatial_scale, pooled, parts, group_size,
                       sample_per_part, trans_std, true);
  }
  check_unmoved_pool({spatial_scale, pooled, parts, group_size, sample_per_part, trans_std, true},
                     input, rois);
  const Tensor still =
      at::zeros_symint({rois.sym_size(0), 2, 1, 1}, rois.options().dtype(at::kFloat));
  return deform_pool(input, rois, still, spatial_scale, pooled, Pair{1, 1}, group_size,
                     sample_per_part, trans_std, true);
}

}  // namespace

Tensor deform_roi_pool(const Tensor& input, const Tensor& rois, const std::optional<Tensor>& offset,
                       double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                       int64_t sampling_ratio, double gamma) {
  static const auto op = operator_handle<decltype(deform_roi_pool)>("tilewright::deform_roi_pool");
  return op.call(input, rois, offset, spatial_scale, pooled_height, pooled_width, sampling_ratio,
                 gamma);
}

Tensor deform_ps_roi_pool(const Tensor& input, const Tensor& rois,
                          const std::optional<Tensor>& offset, double spatial_scale,
                          int64_t output_dim, int64_t group_size, int64_t pooled_size,
                          int64_t part_size, int64_t sample_per_part, double trans_std) {
  static const auto op =
      operator_handle<decltype(deform_ps_roi_pool)>("tilewright::deform_ps_roi_pool");
  return op.call(input, rois, offset, spatial_scale, output_dim, group_size, pooled_size, part_size,
                 sample_per_part, trans_std);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "deform_roi_pool(Tensor input, Tensor rois, Tensor? offset, float spatial_scale, "
      "int pooled_height, int pooled_width, int sampling_ratio=-1, float gamma=0.1) -> Tensor",
      tags);
  m.def(
      "deform_ps_roi_pool(Tensor input, Tensor rois, Tensor? offset, float spatial_scale, "
      "int output_dim, int group_size, int pooled_size, int part_size, int sample_per_part=4, "
      "float trans_std=0.1) -> Tensor",
      tags);
  m.def(
      "_deform_pool(Tensor input, Tensor rois, Tensor offset, float spatial_scale, int[2] pooled, "
      "int[2] parts, int group_size, int samples, float gamma, bool position_sensitive) -> Tensor",
      tags);
  m.def(
      "_deform_pool_backward(Tensor grad, Tensor input, Tensor rois, Tensor offset, "
      "float spatial_scale, int[2] pooled, int[2] parts, int group_size, int samples, float gamma, "
      "bool position_sensitive, bool[2] needs) -> (Tensor grad_input, Tensor grad_offset)",
      tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("deform_roi_pool", &deform_roi_pool_composed);
  m.impl("deform_ps_roi_pool", &deform_ps_roi_pool_composed);
}
TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("_deform_pool", &deform_pool_autograd);
  m.impl("_deform_pool_backward", &deform_pool_backward_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("_deform_pool", &deform_pool_meta);
  m.impl("_deform_pool_backward", &deform_pool_backward_meta);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("_deform_pool", &deform_pool_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("_deform_pool", &deform_pool_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
