// deform_aggregate's schema, shapes, autograd and autocast.
#include "tilewright/deform/deform_aggregate.h"

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/deform/deform_aggregate_composite.h"

namespace tilewright {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The operator of the gradients, of no elements where they are not needed.
DeformAggregateGrads call_deform_aggregate_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& offset,
    const at::Tensor& mask, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups, double offset_scale, DeformAggregateNeeds needs) {
  static const auto op = operator_handle<decltype(call_deform_aggregate_backward)>(
      "tilewright::_deform_aggregate_backward");
  return op.call(grad, input, offset, mask, kernel, stride, padding, dilation, groups, offset_scale,
                 needs);
}

class DeformAggregateFunction : public torch::autograd::Function<DeformAggregateFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& offset,
                            const at::Tensor& mask, const DeformAggregateArgs& args) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor output =
        deform_aggregate(input, offset, mask, args.kernel, args.stride, args.padding, args.dilation,
                         args.groups, args.offset_scale);
    auto& data = ctx->saved_data;
    data["kernel"] = args.kernel;
    data["stride"] = args.stride;
    data["padding"] = args.padding;
    data["dilation"] = args.dilation;
    data["groups"] = args.groups;
    data["offset_scale"] = args.offset_scale;
    ctx->save_for_backward({input, offset, mask});
    return output;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& data = ctx->saved_data;
    const auto kernel = data.at("kernel").toIntVector(), stride = data.at("stride").toIntVector(),
               padding = data.at("padding").toIntVector(),
               dilation = data.at("dilation").toIntVector();
    const DeformAggregateArgs args{"deform_aggregate",
                                   kernel,
                                   stride,
                                   padding,
                                   dilation,
                                   data.at("groups").toInt(),
                                   data.at("offset_scale").toDouble()};
    const DeformAggregateNeeds needs{ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                     ctx->needs_input_grad(2)};
    const auto [input, offset, mask] =
        at::GradMode::is_enabled()  // create_graph: the gradients are differentiated again
            ? deform_aggregate_composite_backward(args, grads[0], saved[0], saved[1], saved[2],
                                                  needs)
            : call_deform_aggregate_backward(grads[0], saved[0], saved[1], saved[2], kernel, stride,
                                             padding, dilation, args.groups, args.offset_scale,
                                             needs);
    const at::Tensor none;
    return {needs[0] ? input : none, needs[1] ? offset : none, needs[2] ? mask : none, none};
  }
};

at::Tensor deform_aggregate_autograd(const at::Tensor& input, const at::Tensor& offset,
                                     const at::Tensor& mask, at::IntArrayRef kernel,
                                     at::IntArrayRef stride, at::IntArrayRef padding,
                                     at::IntArrayRef dilation, int64_t groups,
                                     double offset_scale) {
  const DeformAggregateArgs args{"deform_aggregate", kernel, stride,      padding,
                                 dilation,           groups, offset_scale};
  check_given(args.op, "input", input);
  check_given(args.op, "offset", offset);
  check_given(args.op, "mask", mask);
  return DeformAggregateFunction::apply(input, offset, mask, args);
}

// The backward's own backward only says where second derivatives come from.
class DeformAggregateBackwardFunction
    : public torch::autograd::Function<DeformAggregateBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext*, const at::Tensor& grad, const at::Tensor& input,
                               const at::Tensor& offset, const at::Tensor& mask,
                               const DeformAggregateArgs& args, DeformAggregateNeeds needs) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_input, grad_offset, grad_mask] = call_deform_aggregate_backward(
        grad, input, offset, mask, args.kernel, args.stride, args.padding, args.dilation,
        args.groups, args.offset_scale, needs);
    return {grad_input, grad_offset, grad_mask};
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TILEWRIGHT_CHECK("_deform_aggregate_backward", false,
                     "is not differentiable; second derivatives come from deform_aggregate with "
                     "create_graph=True");
  }
};

DeformAggregateGrads deform_aggregate_backward_autograd(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& offset,
    const at::Tensor& mask, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups, double offset_scale, DeformAggregateNeeds needs) {
  const DeformAggregateArgs args{
      "_deform_aggregate_backward", kernel, stride, padding, dilation, groups, offset_scale};
  const auto g = DeformAggregateBackwardFunction::apply(grad, input, offset, mask, args, needs);
  return {g[0], g[1], g[2]};
}

// As of deform_conv2d: the features go to autocast's dtype, offsets and masks keep their digits.
template <c10::DispatchKey kKey, c10::DeviceType kDevice>
at::Tensor deform_aggregate_autocast(const at::Tensor& input, const at::Tensor& offset,
                                     const at::Tensor& mask, at::IntArrayRef kernel,
                                     at::IntArrayRef stride, at::IntArrayRef padding,
                                     at::IntArrayRef dilation, int64_t groups,
                                     double offset_scale) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  const at::Tensor features =
      at::autocast::cached_cast(at::autocast::get_autocast_dtype(kDevice), input, kDevice);
  return deform_aggregate(features, boxes_beside(offset, features.scalar_type()),
                          boxes_beside(mask, features.scalar_type()), kernel, stride, padding,
                          dilation, groups, offset_scale);
}

at::Tensor deform_aggregate_meta(const at::Tensor& input, const at::Tensor& offset,
                                 const at::Tensor& mask, at::IntArrayRef kernel,
                                 at::IntArrayRef stride, at::IntArrayRef padding,
                                 at::IntArrayRef dilation, int64_t groups, double offset_scale) {
  const DeformAggregateArgs args{"deform_aggregate", kernel, stride,      padding,
                                 dilation,           groups, offset_scale};
  check_deform_aggregate(args, input, offset, mask);
  return deform_aggregate_output(args, input);
}

DeformAggregateGrads deform_aggregate_backward_meta(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& offset,
    const at::Tensor& mask, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups, double offset_scale, DeformAggregateNeeds needs) {
  check_deform_aggregate_backward(
      {"_deform_aggregate_backward", kernel, stride, padding, dilation, groups, offset_scale}, grad,
      input, offset, mask);
  return deform_aggregate_grads(input, offset, mask, needs);
}

}  // namespace

at::Tensor deform_aggregate(const at::Tensor& input, const at::Tensor& offset,
                            const at::Tensor& mask, at::IntArrayRef kernel, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                            double offset_scale) {
  static const auto op =
      operator_handle<decltype(deform_aggregate)>("tilewright::deform_aggregate");
  return op.call(input, offset, mask, kernel, stride, padding, dilation, groups, offset_scale);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "deform_aggregate(Tensor input, Tensor offset, Tensor mask, int[2] kernel, int[2] stride, "
      "int[2] padding, int[2] dilation, int groups, float offset_scale=1.0) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_deform_aggregate_backward(Tensor grad, Tensor input, Tensor offset, Tensor mask, "
      "int[2] kernel, int[2] stride, int[2] padding, int[2] dilation, int groups, "
      "float offset_scale, bool[3] needs) -> (Tensor grad_input, Tensor grad_offset, "
      "Tensor grad_mask)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("deform_aggregate", &deform_aggregate_autograd);
  m.impl("_deform_aggregate_backward", &deform_aggregate_backward_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("deform_aggregate", &deform_aggregate_meta);
  m.impl("_deform_aggregate_backward", &deform_aggregate_backward_meta);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("deform_aggregate", &deform_aggregate_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("deform_aggregate", &deform_aggregate_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}

}  // namespace tilewright
