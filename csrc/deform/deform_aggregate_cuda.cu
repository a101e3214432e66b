// deform_aggregate on CUDA: tensors to kernel parameters and launches.
#include <ATen/ATen.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_aggregate_args.h"
#include "tilewright/deform/deform_aggregate_kernel.cuh"
#include "tilewright/deform/deform_args.h"
#include "tilewright/deform/gradient_sums_host.h"

namespace tilewright {
namespace {

bool is_aligned(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

at::Tensor deform_aggregate_cuda(const at::Tensor& input, const at::Tensor& offset,
                                 const at::Tensor& mask, at::IntArrayRef kernel,
                                 at::IntArrayRef stride, at::IntArrayRef padding,
                                 at::IntArrayRef dilation, int64_t groups, double offset_scale) {
  const DeformAggregateArgs args{"deform_aggregate", kernel, stride,      padding,
                                 dilation,           groups, offset_scale};
  check_deform_aggregate(args, input, offset, mask);
  const DeviceGuard guard(input);
  at::Tensor output = deform_aggregate_output(args, input);
  if (output.numel() == 0) return output;
  const at::Tensor pixels = input.contiguous(), moves = deform_sums_of(offset, input),
                   shares = deform_sums_of(mask, input);
  dispatch_floating(args.op, input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = accumulate_t<device_t<T>>;
    constexpr int kWidth = 16 / int(sizeof(T));
    DeformAggregateParams<device_t<T>> params{};
    params.shape = deform_aggregate_shape(args, input);
    params.input = const_data<T>(pixels);
    params.offset = const_data<Acc>(moves);
    params.mask = const_data<Acc>(shares);
    params.output = mutable_data<T>(output);
    const bool in_packs =
        params.shape.group_channels() % kWidth == 0 && is_aligned(pixels) && is_aligned(output);
    const LaunchConfig config =
        linear_config(output.numel() / (in_packs ? kWidth : 1), kAggregateThreads);
    if (in_packs) {
      launch<deform_aggregate_forward_kernel<device_t<T>, kWidth>>(config, params);
    } else {
      launch<deform_aggregate_forward_kernel<device_t<T>, 1>>(config, params);
    }
  });
  return output;
}

DeformAggregateGrads deform_aggregate_backward_cuda(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& offset,
    const at::Tensor& mask, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups, double offset_scale, DeformAggregateNeeds needs) {
  const DeformAggregateArgs args{
      "_deform_aggregate_backward", kernel, stride, padding, dilation, groups, offset_scale};
  check_deform_aggregate_backward(args, grad, input, offset, mask);
  const DeviceGuard guard(input);
  auto grads = deform_aggregate_grads(input, offset, mask, needs);
  auto& [grad_input, grad_offset, grad_mask] = grads;
  if (input.numel() == 0) {
    std::apply([](auto&... tensor) { (tensor.zero_(), ...); }, grads);
    return grads;
  }
  const at::Tensor results = grad.contiguous(), pixels = input.contiguous(),
                   moves = deform_sums_of(offset, input), shares = deform_sums_of(mask, input);
  const auto options = input.options().dtype(deform_sums_type(input));
  dispatch_floating(args.op, input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = accumulate_t<device_t<T>>;
    DeformAggregateParams<device_t<T>> params{};
    params.shape = deform_aggregate_shape(args, input);
    const DeformAggregateShape& s = params.shape;
    params.input = const_data<T>(pixels);
    params.offset = const_data<Acc>(moves);
    params.mask = const_data<Acc>(shares);
    params.grad = const_data<T>(results);
    // As many addends as a pixel can get.
    GradientSumsOnDevice<Acc> sums(needs[0], input.sizes(), options,
                                   double(s.out_pixels() * s.taps()));
    at::Tensor offsets, masks;
    if (needs[1]) {
      offsets = at::empty(grad_offset.sizes(), options);
      params.grad_offset = mutable_data<Acc>(offsets);
    }
    if (needs[2]) {
      masks = at::empty(grad_mask.sizes(), options);
      params.grad_mask = mutable_data<Acc>(masks);
    }
    int lanes = 1;
    while (lanes < 32 && lanes < s.group_channels()) lanes *= 2;
    const LaunchConfig config =
        linear_config(s.batch * s.out_pixels() * s.groups * lanes, kAggregateThreads);
    sums.run([&](const GradientSums<Acc>& grad) {
      params.grad_input = grad;
      launch<deform_aggregate_backward_kernel<device_t<T>>>(config, params, lanes);
    });
    if (needs[0]) grad_input.copy_(sums.values);
    if (needs[1]) grad_offset.copy_(offsets);
    if (needs[2]) grad_mask.copy_(masks);
  });
  return grads;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("deform_aggregate", &deform_aggregate_cuda);
  m.impl("_deform_aggregate_backward", &deform_aggregate_backward_cuda);
}

}  // namespace tilewright
