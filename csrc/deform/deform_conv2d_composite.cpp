// The definition of deform_conv2d in ATen's operators, and its derivatives as functions.
#include "tilewright/deform/deform_conv2d_composite.h"

#include <ATen/ATen.h>

#include "tilewright/core/differentiate.h"
#include "tilewright/deform/deform_samples.h"

namespace tilewright {
namespace {

using at::Tensor;

// Where all taps read on one axis, (N, offset_groups, taps, OH, OW), in the type of sums.
Tensor coordinates(const DeformConvShape& s, const Tensor& offset, bool vertical) {
  const auto options = offset.options();
  const Tensor kernel =
      vertical ? at::arange(s.kernel_h, options) : at::arange(s.kernel_w, options);
  const Tensor out =
      vertical ? at::arange(s.out_height, options) : at::arange(s.out_width, options);
  const Tensor base = vertical ? (out * s.stride_h - s.pad_h).view({1, 1, -1, 1}) +
                                     (kernel * s.dilation_h).view({-1, 1, 1, 1})
                               : (out * s.stride_w - s.pad_w).view({1, 1, 1, -1}) +
                                     (kernel * s.dilation_w).view({1, -1, 1, 1});
  const Tensor taps = base.expand({s.kernel_h, s.kernel_w, s.out_height, s.out_width})
                          .reshape({s.taps(), s.out_height, s.out_width});
  return offset.view({s.batch, s.offset_groups, s.taps(), 2, s.out_height, s.out_width})
             .select(3, vertical ? 0 : 1) +
         taps;
}

// (N, C, taps, OH * OW): what the taps read, times the mask.
Tensor columns_of(const DeformConvShape& s, const Tensor& input, const Tensor& offset,
                  const Tensor& mask) {
  const Tensor y = coordinates(s, offset, true), x = coordinates(s, offset, false);
  const Tensor pixels =
      input.reshape({s.batch, s.offset_groups, s.offset_group_channels(), s.height * s.width});
  Tensor sum = bilinear_samples(pixels, s.height, s.width, y, x);
  if (mask.defined()) {
    sum = sum * mask.reshape({s.batch, s.offset_groups, 1, s.taps() * s.out_pixels()});
  }
  return sum.reshape({s.batch, s.channels, s.taps(), s.out_pixels()});
}

Tensor composite(const DeformConvShape& s, const Tensor& input, const Tensor& weight,
                 const Tensor& offset, const Tensor& mask, const Tensor& bias) {
  const Tensor columns =
      columns_of(s, input, offset, mask)
          .reshape({s.batch, s.groups, s.group_channels() * s.taps(), s.out_pixels()});
  const Tensor matrix =
      weight.reshape({s.groups, s.group_out_channels(), s.group_channels() * s.taps()});
  const Tensor out =
      at::matmul(matrix, columns).reshape({s.batch, s.out_channels, s.out_height, s.out_width});
  return bias.defined() ? out + bias.view({1, -1, 1, 1}) : out;
}

}  // namespace

DeformConvGrads deform_conv_composite_backward(const DeformConvArgs& args, const Tensor& grad,
                                               const Tensor& input, const Tensor& weight,
                                               const Tensor& offset, const Tensor& mask,
                                               const Tensor& bias, const DeformConvNeeds& needs) {
  const DifferentiableHere guard;
  const Tensor i = own(input), w = own(weight), o = own(offset), m = own(mask), b = own(bias);
  const auto sums = deform_sums_type(input);
  const auto summed = [&](const Tensor& tensor) {
    return tensor.defined() ? tensor.to(sums) : tensor;
  };
  DifferentiableOutputs outputs;
  outputs.add(composite(deform_conv_shape(args, input, weight), summed(i), summed(w), summed(o),
                        summed(m), summed(b)),
              summed(grad));
  const auto grads =
      outputs.differentiate({i, w, o, m, b}, std::vector<bool>(needs.begin(), needs.end()));
  return {grads[0], grads[1], grads[2], grads[3], grads[4]};
}

}  // namespace tilewright
