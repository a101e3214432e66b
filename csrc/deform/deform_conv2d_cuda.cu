// deform_conv2d on CUDA: tensors to kernel parameters and launches.
#include <ATen/ATen.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_args.h"
#include "tilewright/deform/deform_conv2d_backward_kernel.cuh"
#include "tilewright/deform/gradient_sums_host.h"

namespace tilewright {
namespace {

using at::Tensor;

// Whether channels can travel 16 bytes at a time.
bool in_packs(const DeformConvShape& s, const Tensor& rows) {
  const int64_t width = 16 / rows.element_size();
  return reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 16 == 0 && s.channels % width == 0 &&
         s.group_channels() % width == 0 && s.offset_group_channels() % width == 0;
}

// (groups, taps, C / groups, outs), or with the results first (groups, outs, taps, C / groups).
Tensor deform_weight(const DeformConvShape& s, const Tensor& weight, bool results_first) {
  const Tensor split =
      weight.contiguous().view({s.groups, s.group_out_channels(), s.group_channels(), s.taps()});
  return (results_first ? split.permute({0, 1, 3, 2}) : split.permute({0, 3, 2, 1})).contiguous();
}

template <class T>
DeformParams<device_t<T>> deform_params(const DeformConvShape& shape, const Tensor& rows,
                                        const Tensor& weight, const Tensor& offset,
                                        const Tensor& mask) {
  using Acc = accumulate_t<device_t<T>>;
  DeformParams<device_t<T>> params{};
  params.shape = shape;
  params.input = const_data<T>(rows);
  params.weight = const_data<T>(weight);
  params.offset = const_data<Acc>(offset);
  if (mask.defined()) params.mask = const_data<Acc>(mask);
  return params;
}

template <class Parts>
LaunchConfig deform_config(int64_t blocks) {
  return parts_config<Parts>(blocks, kDeformThreads);
}

Tensor deform_conv2d_cuda(const Tensor& input, const Tensor& weight, const Tensor& offset,
                          const std::optional<Tensor>& mask, const std::optional<Tensor>& bias,
                          c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                          c10::SymIntArrayRef dilation, c10::SymInt groups,
                          c10::SymInt offset_groups) {
  const DeformConvArgs args{"deform_conv2d", stride, padding, dilation, groups, offset_groups};
  check_deform_conv(args, input, weight, offset, mask.value_or(Tensor()), bias.value_or(Tensor()));
  const DeviceGuard guard(input);
  Tensor output = deform_conv_output(args, input, weight);
  if (output.numel() == 0) return output;
  const DeformConvShape s = deform_conv_shape(args, input, weight);
  const Tensor rows = input.contiguous(at::MemoryFormat::ChannelsLast);
  const Tensor packed = deform_weight(s, weight, false);
  const Tensor moves = deform_sums_of(offset, input),
               shares = deform_sums_of(mask.value_or(Tensor()), input),
               biases = deform_sums_of(bias.value_or(Tensor()), input);
  dispatch_floating(args.op, input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Device = device_t<T>;
    auto params = deform_params<T>(s, rows, packed, moves, shares);
    if (biases.defined()) params.bias = const_data<accumulate_t<Device>>(biases);
    params.output = mutable_data<T>(output);
    params.channels_last = is_channels_last(output);
    const LaunchConfig config = deform_config<DeformForwardParts<Device>>(
        s.batch * params.tiles() * s.groups * ceil_div(s.group_out_channels(), kDeformColumns));
    if (in_packs(s, rows)) {
      launch<deform_conv_forward_kernel<Device, 16 / int(sizeof(T))>>(config, params);
    } else {
      launch<deform_conv_forward_kernel<Device, 1>>(config, params);
    }
  });
  return output;
}

// The gradients of input, offset and mask.
template <class T>
void spread_on_cuda(DeformParams<device_t<T>> params, const DeformConvNeeds& needs,
                    DeformConvGrads& grads, const Tensor& rows) {
  using Device = device_t<T>;
  using Acc = accumulate_t<Device>;
  auto& [grad_input, grad_weight, grad_offset, grad_mask, grad_bias] = grads;
  const DeformConvShape& s = params.shape;
  const auto options = rows.options().dtype(deform_sums_type(rows)).memory_format(std::nullopt);
  const std::vector<int64_t> sizes{s.batch, s.height, s.width, s.channels};
  const LaunchConfig config = deform_config<DeformSpreadParts<Device>>(s.batch * params.tiles() *
                                                                       s.offset_groups * s.taps());
  // As many addends as a pixel can get.
  GradientSumsOnDevice<Acc> sums(needs[0], sizes, options, double(s.out_pixels() * s.taps()));
  Tensor moves, masks;
  if (needs[2]) {
    moves = at::empty(grad_offset.sizes(), options);
    params.grad_offset = mutable_data<Acc>(moves);
  }
  if (needs[3]) {
    masks = at::empty(grad_mask.sizes(), options);
    params.grad_mask = mutable_data<Acc>(masks);
  }
  sums.run([&](const GradientSums<Acc>& grad) {
    params.grad_input = grad;
    launch<deform_conv_spread_kernel<Device>>(config, params);
  });
  if (needs[0]) grad_input.copy_(sums.values.permute({0, 3, 1, 2}));
  if (needs[2]) grad_offset.copy_(moves);
  if (needs[3]) grad_mask.copy_(masks);
}

template <class T>
void grad_weight_on_cuda(DeformParams<device_t<T>> params, const Tensor& rows,
                         Tensor& grad_weight) {
  using Device = device_t<T>;
  using Acc = accumulate_t<Device>;
  constexpr int64_t kSplitPixels = 4096, kMostSplits = 32;
  const DeformConvShape& s = params.shape;
  params.splits = std::min(ceil_div(s.batch * s.out_pixels(), kSplitPixels), kMostSplits);
  const Tensor parts =
      at::empty({params.splits, s.groups, s.group_out_channels(), s.taps(), s.group_channels()},
                rows.options().dtype(deform_sums_type(rows)).memory_format(std::nullopt));
  params.grad_weight = mutable_data<Acc>(parts);
  const int64_t channel_tiles = ceil_div(s.group_channels(), kDeformColumns);
  const LaunchConfig config = deform_config<DeformForwardParts<Device>>(
      params.splits * s.groups * channel_tiles * s.taps() *
      ceil_div(s.group_out_channels(), kDeformRows));
  if (in_packs(s, rows)) {
    launch<deform_conv_grad_weight_kernel<Device, 16 / int(sizeof(T))>>(config, params,
                                                                        channel_tiles);
  } else {
    launch<deform_conv_grad_weight_kernel<Device, 1>>(config, params, channel_tiles);
  }
  grad_weight.copy_(parts.sum(0).transpose(2, 3).reshape(grad_weight.sizes()));
}

DeformConvGrads deform_conv2d_backward_cuda(const Tensor& grad, const Tensor& input,
                                            const Tensor& weight, const Tensor& offset,
                                            const std::optional<Tensor>& mask,
                                            c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                            c10::SymIntArrayRef dilation, c10::SymInt groups,
                                            c10::SymInt offset_groups, DeformConvNeeds needs) {
  const DeformConvArgs args{
      "_deform_conv2d_backward", stride, padding, dilation, groups, offset_groups};
  check_deform_conv_backward(args, grad, input, weight, offset, mask.value_or(Tensor()), needs);
  const DeviceGuard guard(input);
  auto grads = deform_conv_grads(input, weight, offset, mask.value_or(Tensor()), needs);
  if (grad.numel() == 0 || input.numel() == 0) {
    clear_deform_conv_grads(grads);
    if (grad.numel() == 0) return grads;
  }
  if (needs[4]) {
    std::get<4>(grads).copy_(grad.sum({0, 2, 3}, false, deform_sums_type(input)));
  }
  if (input.numel() == 0) return grads;
  const DeformConvShape s = deform_conv_shape(args, input, weight);
  const Tensor rows = input.contiguous(at::MemoryFormat::ChannelsLast);
  const Tensor moves = deform_sums_of(offset, input),
               shares = deform_sums_of(mask.value_or(Tensor()), input);
  const Tensor packed = deform_weight(s, weight, true);
  dispatch_floating(args.op, input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    auto params = deform_params<T>(s, rows, packed, moves, shares);
    if (needs[0] || needs[2] || needs[3]) {
      const Tensor grad_rows = grad.contiguous(at::MemoryFormat::ChannelsLast);
      params.grad_rows = const_data<T>(grad_rows);
      spread_on_cuda<T>(params, needs, grads, rows);
    }
    if (needs[1]) {
      const Tensor grad_planes = grad.contiguous();
      params.grad_planes = const_data<T>(grad_planes);
      grad_weight_on_cuda<T>(params, rows, std::get<1>(grads));
    }
  });
  return grads;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("deform_conv2d", &deform_conv2d_cuda);
  m.impl("_deform_conv2d_backward", &deform_conv2d_backward_cuda);
}

}  // namespace tilewright
