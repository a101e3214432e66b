// Checks, allocations and sizes of deform_aggregate: what does not depend on the device.
#include "tilewright/deform/deform_aggregate_args.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "tilewright/deform/deform_checks.h"

namespace tilewright {
namespace {

std::array<c10::SymInt, 2> aggregate_out_sizes(const DeformAggregateArgs& args,
                                               const at::Tensor& input) {
  return {deform_out_size(input.sym_size(1), args.kernel.front(), args.stride.front(),
                          args.padding.front(), args.dilation.front()),
          deform_out_size(input.sym_size(2), args.kernel.back(), args.stride.back(),
                          args.padding.back(), args.dilation.back())};
}

void check_sizes(const DeformAggregateArgs& args, const char* name, const at::Tensor& tensor,
                 const char* last_name, const c10::SymInt& last, const at::Tensor& input) {
  const auto out = aggregate_out_sizes(args, input);
  const std::array<c10::SymInt, 4> wanted{input.sym_size(0), out[0], out[1], last};
  TILEWRIGHT_CHECK(args.op, tensor.dim() == 4 && tensor.sym_sizes().equals(wanted), name,
                   " must have shape (N, output height, output width, ", last_name,
                   ") = ", shape_of(c10::SymIntArrayRef(wanted)), ", got ", shape_of(tensor));
}

}  // namespace

void check_deform_aggregate(const DeformAggregateArgs& args, const at::Tensor& input,
                            const at::Tensor& offset, const at::Tensor& mask) {
  const char* op = args.op;
  check_floating(op, "input", input);
  check_shape(op, "input", input, "(N, H, W, C)", 4);
  check_pair(op, "kernel", args.kernel, 1);
  check_pair(op, "stride", args.stride, 1);
  check_pair(op, "padding", args.padding, 0);
  check_pair(op, "dilation", args.dilation, 1);
  TILEWRIGHT_CHECK(op, std::isfinite(args.offset_scale), "offset_scale must be finite, got ",
                   args.offset_scale);
  TILEWRIGHT_CHECK(op, args.groups >= 1, "groups must be positive, got ", args.groups);
  const c10::SymInt channels = input.sym_size(3);
  TILEWRIGHT_CHECK(op, channels >= 1, "input must have channels, got ", shape_of(input));
  TILEWRIGHT_CHECK(op, channels % args.groups == 0, "groups (", args.groups,
                   ") must divide input's channels (", channels, ")");
  const auto out = aggregate_out_sizes(args, input);
  TILEWRIGHT_CHECK(op, out[0] >= 1 && out[1] >= 1,
                   "the kernel reaches beyond the padded input: ", "input ", shape_of(input),
                   ", kernel (", args.kernel.front(), ", ", args.kernel.back(),
                   ") give an output of height ", out[0], " and width ", out[1]);
  const int64_t taps = args.groups * args.kernel.front() * args.kernel.back();
  check_beside(op, "offset", offset, input);
  check_sizes(args, "offset", offset, "groups * kernel height * kernel width * 2", 2 * taps, input);
  check_beside(op, "mask", mask, input);
  check_sizes(args, "mask", mask, "groups * kernel height * kernel width", taps, input);
}

void check_deform_aggregate_backward(const DeformAggregateArgs& args, const at::Tensor& grad,
                                     const at::Tensor& input, const at::Tensor& offset,
                                     const at::Tensor& mask) {
  check_deform_aggregate(args, input, offset, mask);
  check_same_dtype(args.op, "grad", grad, input);
  check_sizes(args, "grad", grad, "C", input.sym_size(3), input);
}

at::Tensor deform_aggregate_output(const DeformAggregateArgs& args, const at::Tensor& input) {
  const auto out = aggregate_out_sizes(args, input);
  return at::empty_symint({input.sym_size(0), out[0], out[1], input.sym_size(3)}, input.options());
}

DeformAggregateGrads deform_aggregate_grads(const at::Tensor& input, const at::Tensor& offset,
                                            const at::Tensor& mask,
                                            const DeformAggregateNeeds& needs) {
  const auto like = [&](bool needed, const at::Tensor& tensor) {
    return needed ? at::empty_symint(tensor.sym_sizes(), tensor.options())
                  : at::empty({0}, input.options());
  };
  return {like(needs[0], input), like(needs[1], offset), like(needs[2], mask)};
}

DeformAggregateShape deform_aggregate_shape(const DeformAggregateArgs& args,
                                            const at::Tensor& input) {
  const auto out = aggregate_out_sizes(args, input);
  DeformAggregateShape s;
  s.batch = input.size(0);
  s.height = input.size(1);
  s.width = input.size(2);
  s.channels = input.size(3);
  s.out_height = out[0].expect_int();
  s.out_width = out[1].expect_int();
  s.kernel_h = args.kernel.front();
  s.kernel_w = args.kernel.back();
  s.stride_h = args.stride.front();
  s.stride_w = args.stride.back();
  s.pad_h = args.padding.front();
  s.pad_w = args.padding.back();
  s.dilation_h = args.dilation.front();
  s.dilation_w = args.dilation.back();
  s.groups = args.groups;
  s.offset_scale = args.offset_scale;
  return s;
}

}  // namespace tilewright
