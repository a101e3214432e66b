// The definition of deform_aggregate in ATen's operators, and its derivatives as functions.
#include "tilewright/deform/deform_aggregate_composite.h"

#include <ATen/ATen.h>

#include "tilewright/core/differentiate.h"
#include "tilewright/deform/deform_args.h"
#include "tilewright/deform/deform_samples.h"

namespace tilewright {
namespace {

// Where all taps read on one axis, (N, groups, KW, KH, OH * OW); moves: (N, OH * OW, groups, K).
at::Tensor aggregate_coordinates(const DeformAggregateShape& s, const at::Tensor& moves,
                                 bool vertical) {
  const auto options = moves.options();
  const int64_t half =
      (vertical ? s.dilation_h * (s.kernel_h - 1) : s.dilation_w * (s.kernel_w - 1)) / 2;
  const at::Tensor kernel =
      vertical ? (at::arange(s.kernel_h, options) * s.dilation_h - half).view({1, -1, 1})
               : (at::arange(s.kernel_w, options) * s.dilation_w - half).view({-1, 1, 1});
  const at::Tensor centre =
      (vertical ? (at::arange(s.out_height, options) * s.stride_h - s.pad_h + half).view({-1, 1})
                : (at::arange(s.out_width, options) * s.stride_w - s.pad_w + half).view({1, -1}))
          .expand({s.out_height, s.out_width})
          .reshape({s.out_pixels()});
  const at::Tensor offset =
      moves.permute({0, 2, 3, 1})
          .reshape({s.batch, s.groups, s.kernel_w, s.kernel_h, s.out_pixels()});
  return centre + (kernel + offset) * s.offset_scale;
}

at::Tensor aggregate_composite(const DeformAggregateShape& s, const at::Tensor& input,
                               const at::Tensor& offset, const at::Tensor& mask) {
  const at::Tensor moves = offset.reshape({s.batch, s.out_pixels(), s.groups, s.taps(), 2});
  const at::Tensor y = aggregate_coordinates(s, moves.select(4, 1), true),
                   x = aggregate_coordinates(s, moves.select(4, 0), false);
  const at::Tensor planes =
      input.reshape({s.batch, s.pixels(), s.groups, s.group_channels()}).permute({0, 2, 3, 1});
  const at::Tensor samples =
      bilinear_samples(planes, s.height, s.width, y, x)
          .reshape({s.batch, s.groups, s.group_channels(), s.taps(), s.out_pixels()});
  const at::Tensor shares = mask.reshape({s.batch, s.out_pixels(), s.groups, s.taps()})
                                .permute({0, 2, 3, 1})
                                .unsqueeze(2);
  return (samples * shares)
      .sum(3)
      .permute({0, 3, 1, 2})
      .reshape({s.batch, s.out_height, s.out_width, s.channels});
}

}  // namespace

DeformAggregateGrads deform_aggregate_composite_backward(
    const DeformAggregateArgs& args, const at::Tensor& grad, const at::Tensor& input,
    const at::Tensor& offset, const at::Tensor& mask, const DeformAggregateNeeds& needs) {
  if (input.numel() == 0) {
    return {at::zeros_like(input), at::zeros_like(offset), at::zeros_like(mask)};
  }
  const DifferentiableHere guard;
  const at::Tensor i = own(input), o = own(offset), m = own(mask);
  const auto sums = deform_sums_type(input);
  DifferentiableOutputs outputs;
  outputs.add(
      aggregate_composite(deform_aggregate_shape(args, input), i.to(sums), o.to(sums), m.to(sums)),
      grad.to(sums));
  const auto grads =
      outputs.differentiate({i, o, m}, std::vector<bool>(needs.begin(), needs.end()));
  return {grads[0], grads[1], grads[2]};
}

}  // namespace tilewright
