// Checks, allocations and sizes of deform_conv2d: what does not depend on the device.
#include "tilewright/deform/deform_args.h"

#include <ATen/ops/empty.h>

#include "tilewright/deform/deform_checks.h"

namespace tilewright {
namespace {

// (vertical, horizontal) of one or two numbers.
std::array<c10::SymInt, 2> pair_of(c10::SymIntArrayRef numbers) {
  return {numbers.front(), numbers.back()};
}

std::array<c10::SymInt, 2> out_sizes(const DeformConvArgs& args, const at::Tensor& input,
                                     const at::Tensor& weight) {
  const auto stride = pair_of(args.stride), padding = pair_of(args.padding),
             dilation = pair_of(args.dilation);
  return {
      deform_out_size(input.sym_size(2), weight.sym_size(2), stride[0], padding[0], dilation[0]),
      deform_out_size(input.sym_size(3), weight.sym_size(3), stride[1], padding[1], dilation[1])};
}

void check_numbers(const DeformConvArgs& args) {
  check_pair(args.op, "stride", args.stride, 1);
  check_pair(args.op, "padding", args.padding, 0);
  check_pair(args.op, "dilation", args.dilation, 1);
  TILEWRIGHT_CHECK(args.op, args.groups >= 1, "groups must be positive, got ", args.groups);
  TILEWRIGHT_CHECK(args.op, args.offset_groups >= 1, "offset_groups must be positive, got ",
                   args.offset_groups);
}

void check_maps(const DeformConvArgs& args, const char* name, const at::Tensor& tensor,
                const char* per_tap, const c10::SymInt& channels, const at::Tensor& input,
                const at::Tensor& weight) {
  check_beside(args.op, name, tensor, input);
  const auto out = out_sizes(args, input, weight);
  const std::array<c10::SymInt, 4> wanted{input.sym_size(0), channels, out[0], out[1]};
  TILEWRIGHT_CHECK(args.op, tensor.dim() == 4 && tensor.sym_sizes().equals(wanted), name,
                   " must have shape (N, ", per_tap,
                   "offset_groups * kernel height * width, output "
                   "height, output width) = ",
                   shape_of(c10::SymIntArrayRef(wanted)), ", got ", shape_of(tensor));
}

}  // namespace

void check_deform_conv(const DeformConvArgs& args, const at::Tensor& input,
                       const at::Tensor& weight, const at::Tensor& offset, const at::Tensor& mask,
                       const at::Tensor& bias) {
  const char* op = args.op;
  check_floating(op, "input", input);
  check_shape(op, "input", input, "(N, C, H, W)", 4);
  check_same_dtype(op, "weight", weight, input);
  check_shape(op, "weight", weight, "(C_out, C / groups, KH, KW)", 4);
  check_numbers(args);
  const c10::SymInt channels = input.sym_size(1), out_channels = weight.sym_size(0);
  TILEWRIGHT_CHECK(op, channels >= 1, "input must have channels, got ", shape_of(input));
  TILEWRIGHT_CHECK(op, channels % args.groups == 0 && out_channels % args.groups == 0, "groups (",
                   args.groups, ") must divide input's channels (", channels,
                   ") and weight's first size (", out_channels, ")");
  TILEWRIGHT_CHECK(op, weight.sym_size(1) * args.groups == channels,
                   "weight must have shape (C_out, C / groups, KH, KW) with C / groups = ",
                   channels / args.groups, ", got ", shape_of(weight));
  TILEWRIGHT_CHECK(op, weight.sym_size(2) >= 1 && weight.sym_size(3) >= 1,
                   "weight must have a kernel of at least 1 x 1, got ", shape_of(weight));
  TILEWRIGHT_CHECK(op, channels % args.offset_groups == 0, "offset_groups (", args.offset_groups,
                   ") must divide input's channels (", channels, ")");
  const auto out = out_sizes(args, input, weight);
  TILEWRIGHT_CHECK(op, out[0] >= 1 && out[1] >= 1,
                   "the kernel reaches beyond the padded input: ", "input ", shape_of(input),
                   ", weight ", shape_of(weight), " give an output of height ", out[0],
                   " and width ", out[1]);
  const c10::SymInt taps = args.offset_groups * weight.sym_size(2) * weight.sym_size(3);
  check_maps(args, "offset", offset, "2 * ", 2 * taps, input, weight);
  if (mask.defined()) check_maps(args, "mask", mask, "", taps, input, weight);
  if (bias.defined()) {
    check_same_dtype(op, "bias", bias, input);
    TILEWRIGHT_CHECK(op, bias.dim() == 1 && bias.sym_size(0) == out_channels,
                     "bias must have shape (C_out,) = (", out_channels, ",), got ", shape_of(bias));
  }
}

void check_deform_conv_backward(const DeformConvArgs& args, const at::Tensor& grad,
                                const at::Tensor& input, const at::Tensor& weight,
                                const at::Tensor& offset, const at::Tensor& mask,
                                const DeformConvNeeds& needs) {
  check_deform_conv(args, input, weight, offset, mask, {});
  check_same_dtype(args.op, "grad", grad, input);
  const auto out = out_sizes(args, input, weight);
  const std::array<c10::SymInt, 4> wanted{input.sym_size(0), weight.sym_size(0), out[0], out[1]};
  TILEWRIGHT_CHECK(args.op, grad.dim() == 4 && grad.sym_sizes().equals(wanted),
                   "grad must have shape ", shape_of(c10::SymIntArrayRef(wanted)), ", got ",
                   shape_of(grad));
  TILEWRIGHT_CHECK(args.op, !needs[3] || mask.defined(),
                   "the gradient of mask needs a mask, got None");
}

at::Tensor deform_conv_output(const DeformConvArgs& args, const at::Tensor& input,
                              const at::Tensor& weight) {
  const auto out = out_sizes(args, input, weight);
  return at::empty_symint({input.sym_size(0), weight.sym_size(0), out[0], out[1]}, input.options(),
                          input.suggest_memory_format());
}

DeformConvGrads deform_conv_grads(const at::Tensor& input, const at::Tensor& weight,
                                  const at::Tensor& offset, const at::Tensor& mask,
                                  const DeformConvNeeds& needs) {
  const auto like = [&](bool needed, const at::Tensor& tensor, at::MemoryFormat layout) {
    if (!needed) return at::empty({0}, input.options());
    return at::empty_symint(tensor.sym_sizes(), tensor.options(), layout);
  };
  constexpr auto kPlanes = at::MemoryFormat::Contiguous;
  return {like(needs[0], input, input.suggest_memory_format()), like(needs[1], weight, kPlanes),
          like(needs[2], offset, kPlanes), like(needs[3], mask, kPlanes),
          needs[4] ? at::empty_symint({weight.sym_size(0)}, weight.options())
                   : at::empty({0}, input.options())};
}

void clear_deform_conv_grads(DeformConvGrads& grads) {
  std::apply([](auto&... grad) { (grad.zero_(), ...); }, grads);
}

DeformConvShape deform_conv_shape(const DeformConvArgs& args, const at::Tensor& input,
                                  const at::Tensor& weight) {
  const auto out = out_sizes(args, input, weight);
  const auto number = [](const c10::SymInt& value) { return value.expect_int(); };
  DeformConvShape s;
  s.batch = input.size(0);
  s.channels = input.size(1);
  s.height = input.size(2);
  s.width = input.size(3);
  s.out_channels = weight.size(0);
  s.out_height = number(out[0]);
  s.out_width = number(out[1]);
  s.kernel_h = weight.size(2);
  s.kernel_w = weight.size(3);
  s.stride_h = number(args.stride.front());
  s.stride_w = number(args.stride.back());
  s.pad_h = number(args.padding.front());
  s.pad_w = number(args.padding.back());
  s.dilation_h = number(args.dilation.front());
  s.dilation_w = number(args.dilation.back());
  s.groups = number(args.groups);
  s.offset_groups = number(args.offset_groups);
  return s;
}

}  // namespace tilewright
