// deform_conv2d's schema, shapes, autograd and autocast.
#include "tilewright/deform/deform_conv2d.h"

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/autocast.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/core/optional_tensor.h"
#include "tilewright/deform/deform_calls.h"
#include "tilewright/deform/deform_conv2d_composite.h"

namespace tilewright {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<at::Tensor>;

class DeformConvFunction : public torch::autograd::Function<DeformConvFunction> {
 public:
  static constexpr bool is_traceable = true;

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& offset, const Maybe& mask, const Maybe& bias,
                            const DeformConvArgs& args) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor output =
        call_deform_conv2d(input, weight, offset, mask, bias, args.stride, args.padding,
                           args.dilation, args.groups, args.offset_groups);
    auto& data = ctx->saved_data;
    data["stride"] = args.stride;
    data["padding"] = args.padding;
    data["dilation"] = args.dilation;
    data["groups"] = args.groups;
    data["offset_groups"] = args.offset_groups;
    ctx->save_for_backward(
        {input, weight, offset, mask.value_or(at::Tensor()), bias.value_or(at::Tensor())});
    return output;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &offset = saved[2], &mask = saved[3],
                     &bias = saved[4];
    const auto& data = ctx->saved_data;
    const auto stride = data.at("stride").toSymIntVector(),
               padding = data.at("padding").toSymIntVector(),
               dilation = data.at("dilation").toSymIntVector();
    const DeformConvArgs args{"deform_conv2d",
                              stride,
                              padding,
                              dilation,
                              data.at("groups").toSymInt(),
                              data.at("offset_groups").toSymInt()};
    DeformConvNeeds needs{};
    size_t edge = 0;  // of the tensors that were given
    for (size_t i = 0; i < needs.size(); ++i) {
      needs[i] = saved[i].defined() && ctx->needs_input_grad(edge++);
    }
    DeformConvGrads found =
        at::GradMode::is_enabled()  // create_graph: the gradients are differentiated again
            ? deform_conv_composite_backward(args, grads[0], input, weight, offset, mask, bias,
                                             needs)
            : call_deform_conv2d_backward(grads[0], input, weight, offset, optional_of(mask),
                                          args.stride, args.padding, args.dilation, args.groups,
                                          args.offset_groups, needs);
    const auto given = [&](size_t i, const at::Tensor& grad) {
      return needs[i] ? grad : at::Tensor();
    };
    return {given(0, std::get<0>(found)), given(1, std::get<1>(found)),
            given(2, std::get<2>(found)), given(3, std::get<3>(found)),
            given(4, std::get<4>(found)), {}};
  }
};

at::Tensor deform_conv2d_autograd(const at::Tensor& input, const at::Tensor& weight,
                                  const at::Tensor& offset, const Maybe& mask, const Maybe& bias,
                                  c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                  c10::SymIntArrayRef dilation, c10::SymInt groups,
                                  c10::SymInt offset_groups) {
  const DeformConvArgs args{"deform_conv2d", stride, padding, dilation, groups, offset_groups};
  check_given(args.op, "input", input);
  check_given(args.op, "weight", weight);
  check_given(args.op, "offset", offset);
  return DeformConvFunction::apply(input, weight, offset, mask, bias, args);
}

// The backward's own backward only says where second derivatives come from.
class DeformConvBackwardFunction : public torch::autograd::Function<DeformConvBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext*, const at::Tensor& grad, const at::Tensor& input,
                               const at::Tensor& weight, const at::Tensor& offset,
                               const Maybe& mask, const DeformConvArgs& args,
                               DeformConvNeeds needs) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [di, dw, doffset, dmask, dbias] =
        call_deform_conv2d_backward(grad, input, weight, offset, mask, args.stride, args.padding,
                                    args.dilation, args.groups, args.offset_groups, needs);
    return {di, dw, doffset, dmask, dbias};
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TILEWRIGHT_CHECK("_deform_conv2d_backward", false,
                     "is not differentiable; second derivatives come from deform_conv2d with "
                     "create_graph=True");
  }
};

DeformConvGrads deform_conv2d_backward_autograd(const at::Tensor& grad, const at::Tensor& input,
                                                const at::Tensor& weight, const at::Tensor& offset,
                                                const Maybe& mask, c10::SymIntArrayRef stride,
                                                c10::SymIntArrayRef padding,
                                                c10::SymIntArrayRef dilation, c10::SymInt groups,
                                                c10::SymInt offset_groups, DeformConvNeeds needs) {
  const DeformConvArgs args{
      "_deform_conv2d_backward", stride, padding, dilation, groups, offset_groups};
  const auto g = DeformConvBackwardFunction::apply(grad, input, weight, offset, mask, args, needs);
  return {g[0], g[1], g[2], g[3], g[4]};
}

// What is multiplied goes to autocast's dtype, as in conv2d; offsets and masks keep their digits.
template <c10::DispatchKey kKey, c10::DeviceType kDevice>
at::Tensor deform_conv2d_autocast(const at::Tensor& input, const at::Tensor& weight,
                                  const at::Tensor& offset, const Maybe& mask, const Maybe& bias,
                                  c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                  c10::SymIntArrayRef dilation, c10::SymInt groups,
                                  c10::SymInt offset_groups) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  const auto dtype = at::autocast::get_autocast_dtype(kDevice);
  const auto cast = [&](const at::Tensor& tensor) {
    return at::autocast::cached_cast(dtype, tensor, kDevice);
  };
  const at::Tensor features = cast(input);
  const auto beside = [&](const at::Tensor& tensor) {
    return boxes_beside(tensor, features.scalar_type());
  };
  return call_deform_conv2d(features, cast(weight), beside(offset),
                            mask ? Maybe(beside(*mask)) : mask, bias ? Maybe(cast(*bias)) : bias,
                            stride, padding, dilation, groups, offset_groups);
}

at::Tensor deform_conv2d_meta(const at::Tensor& input, const at::Tensor& weight,
                              const at::Tensor& offset, const Maybe& mask, const Maybe& bias,
                              c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                              c10::SymIntArrayRef dilation, c10::SymInt groups,
                              c10::SymInt offset_groups) {
  const DeformConvArgs args{"deform_conv2d", stride, padding, dilation, groups, offset_groups};
  check_deform_conv(args, input, weight, offset, mask.value_or(at::Tensor()),
                    bias.value_or(at::Tensor()));
  return deform_conv_output(args, input, weight);
}

DeformConvGrads deform_conv2d_backward_meta(const at::Tensor& grad, const at::Tensor& input,
                                            const at::Tensor& weight, const at::Tensor& offset,
                                            const Maybe& mask, c10::SymIntArrayRef stride,
                                            c10::SymIntArrayRef padding,
                                            c10::SymIntArrayRef dilation, c10::SymInt groups,
                                            c10::SymInt offset_groups, DeformConvNeeds needs) {
  check_deform_conv_backward(
      {"_deform_conv2d_backward", stride, padding, dilation, groups, offset_groups}, grad, input,
      weight, offset, mask.value_or(at::Tensor()), needs);
  return deform_conv_grads(input, weight, offset, mask.value_or(at::Tensor()), needs);
}

}  // namespace

at::Tensor call_deform_conv2d(const at::Tensor& input, const at::Tensor& weight,
                              const at::Tensor& offset, const std::optional<at::Tensor>& mask,
                              const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
                              c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                              c10::SymInt groups, c10::SymInt offset_groups) {
  static const auto op = operator_handle<decltype(call_deform_conv2d)>("tilewright::deform_conv2d");
  return op.call(input, weight, offset, mask, bias, stride, padding, dilation, groups,
                 offset_groups);
}

DeformConvGrads call_deform_conv2d_backward(const at::Tensor& grad, const at::Tensor& input,
                                            const at::Tensor& weight, const at::Tensor& offset,
                                            const std::optional<at::Tensor>& mask,
                                            c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                            c10::SymIntArrayRef dilation, c10::SymInt groups,
                                            c10::SymInt offset_groups, DeformConvNeeds needs) {
  static const auto op =
      operator_handle<decltype(call_deform_conv2d_backward)>("tilewright::_deform_conv2d_backward");
  return op.call(grad, input, weight, offset, mask, stride, padding, dilation, groups,
                 offset_groups, needs);
}

at::Tensor deform_conv2d(const at::Tensor& input, const at::Tensor& weight,
                         const at::Tensor& offset, const std::optional<at::Tensor>& mask,
                         const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                         at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                         int64_t offset_groups) {
  return call_deform_conv2d(input, weight, offset, mask, bias, c10::fromIntArrayRefSlow(stride),
                            c10::fromIntArrayRefSlow(padding), c10::fromIntArrayRefSlow(dilation),
                            groups, offset_groups);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor? mask=None, "
      "Tensor? bias=None, SymInt[2] stride=1, SymInt[2] padding=0, SymInt[2] dilation=1, "
      "SymInt groups=1, SymInt offset_groups=1) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, "
      "Tensor? mask, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
      "SymInt offset_groups, bool[5] needs) -> (Tensor grad_input, Tensor grad_weight, "
      "Tensor grad_offset, Tensor grad_mask, Tensor grad_bias)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("deform_conv2d", &deform_conv2d_autograd);
  m.impl("_deform_conv2d_backward", &deform_conv2d_backward_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("deform_conv2d", &deform_conv2d_meta);
  m.impl("_deform_conv2d_backward", &deform_conv2d_backward_meta);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("deform_conv2d", &deform_conv2d_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("deform_conv2d", &deform_conv2d_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}

}  // namespace tilewright
