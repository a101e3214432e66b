// deform_conv2d on the CPU: tensors to raw pointers, weights as the products take them, and how the
// work is cut for threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "tilewright/core/cpu/gemm.h"
#include "tilewright/deform/deform_args.h"
#include "tilewright/deform/deform_cpu.h"

namespace tilewright {
namespace {

using at::Tensor;
constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

bool is_product_of_bfloat16(at::ScalarType dtype, const DeformConvShape& s) {
  return dtype == at::kBFloat16 && brgemm_serves_bfloat16() &&
         s.group_out_channels() >= kDeformLeastBfloat16Results;
}

const void* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

// (groups, taps, C / groups, C_out / groups); of bfloat16 products pairs of channels lie together.
Tensor forward_weight(const DeformConvShape& s, const Tensor& weight, bool bfloat16_products) {
  const Tensor rows = weight.view({s.groups, s.group_out_channels(), s.group_channels(), s.taps()})
                          .permute({0, 3, 2, 1});
  if (!bfloat16_products) return rows.to(deform_sums_type(weight)).contiguous();
  const int64_t odd = s.group_channels() % 2;
  return at::constant_pad_nd(rows, {0, 0, 0, odd})
      .view({s.groups, s.taps(), -1, 2, s.group_out_channels()})
      .transpose(3, 4)
      .contiguous();
}

Tensor deform_conv2d_cpu(const Tensor& input, const Tensor& weight, const Tensor& offset,
                         const std::optional<Tensor>& mask, const std::optional<Tensor>& bias,
                         c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                         c10::SymIntArrayRef dilation, c10::SymInt groups,
                         c10::SymInt offset_groups) {
  const DeformConvArgs args{"deform_conv2d", stride, padding, dilation, groups, offset_groups};
  check_deform_conv(args, input, weight, offset, mask.value_or(Tensor()), bias.value_or(Tensor()));
  Tensor output = deform_conv_output(args, input, weight);
  if (output.numel() == 0) return output;
  DeformCpuParams params{};
  params.dtype = input.scalar_type();
  params.shape = deform_conv_shape(args, input, weight);
  const DeformConvShape& s = params.shape;
  params.bfloat16_products =
      is_product_of_bfloat16(params.dtype, s) &&
      std::max(s.taps() * (s.group_channels() + 1), s.out_channels) <= kMostLeadingDimension;
  params.channels_last = is_channels_last(output);
  const Tensor rows = input.contiguous(kChannelsLast);
  const Tensor packed = forward_weight(s, weight.contiguous(), params.bfloat16_products);
  const Tensor moves = deform_sums_of(offset, input),
               shares = deform_sums_of(mask.value_or(Tensor()), input),
               biases = deform_sums_of(bias.value_or(Tensor()), input);
  params.input = rows.const_data_ptr();
  params.offset = moves.const_data_ptr();
  params.mask = data_or_null(shares);
  params.weight = packed.const_data_ptr();
  params.bias = data_or_null(biases);
  params.output = output.mutable_data_ptr();
  params.tile = deform_tile(s.out_pixels(), s.taps(), s.channels * packed.element_size());
  at::parallel_for(0, s.batch * params.tile.tiles(s.out_pixels()), 1,
                   [&](int64_t begin, int64_t end) { deform_conv_forward(params, begin, end); });
  return output;
}

// (C / part, C_out / groups, taps, part); of bfloat16 products pairs of results lie together.
Tensor backward_weight(const DeformConvShape& s, int64_t part, const Tensor& weight,
                       bool bfloat16_products) {
  const Tensor rows =
      weight.view({s.groups, s.group_out_channels(), s.group_channels() / part, part, s.taps()})
          .permute({0, 2, 1, 4, 3});
  if (!bfloat16_products) return rows.to(deform_sums_type(weight)).contiguous();
  return rows.reshape({s.channels / part, s.group_out_channels() / 2, 2, s.taps() * part})
      .transpose(2, 3)
      .contiguous();
}

// The sum over the first dimension, in order; the first part is written to.
Tensor sum_parts(const Tensor& parts) {
  Tensor sum = parts[0];
  for (int64_t i = 1; i < parts.size(0); ++i) sum.add_(parts[i]);
  return sum;
}

// parts: (image parts, C / part, C_out / groups, taps, part)
void store_grad_weight(const DeformConvShape& s, const Tensor& parts, Tensor& grad_weight) {
  const int64_t part = parts.size(-1);
  grad_weight.copy_(
      sum_parts(parts)
          .view({s.groups, s.group_channels() / part, s.group_out_channels(), s.taps(), part})
          .permute({0, 2, 1, 4, 3})
          .reshape(grad_weight.sizes()));
}

DeformConvGrads deform_conv2d_backward_cpu(const Tensor& grad, const Tensor& input,
                                           const Tensor& weight, const Tensor& offset,
                                           const std::optional<Tensor>& mask,
                                           c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                           c10::SymIntArrayRef dilation, c10::SymInt groups,
                                           c10::SymInt offset_groups, DeformConvNeeds needs) {
  const DeformConvArgs args{
      "_deform_conv2d_backward", stride, padding, dilation, groups, offset_groups};
  check_deform_conv_backward(args, grad, input, weight, offset, mask.value_or(Tensor()), needs);
  auto grads = deform_conv_grads(input, weight, offset, mask.value_or(Tensor()), needs);
  auto& [grad_input, grad_weight, grad_offset, grad_mask, grad_bias] = grads;
  if (grad.numel() == 0 || input.numel() == 0) {
    clear_deform_conv_grads(grads);
    if (grad.numel() == 0) return grads;
  }
  DeformBackwardCpuParams params{};
  params.dtype = input.scalar_type();
  params.shape = deform_conv_shape(args, input, weight);
  const DeformConvShape& s = params.shape;
  const DeformTasks tasks(s);
  params.grad_channels_last = is_channels_last(grad);
  params.channels_last = is_channels_last(grad_input);
  const auto options = input.options().dtype(deform_sums_type(input)).memory_format(std::nullopt);
  const Tensor results = grad.contiguous(grad.suggest_memory_format());
  const Tensor rows = input.contiguous(kChannelsLast);
  const Tensor moves = deform_sums_of(offset, input),
               shares = deform_sums_of(mask.value_or(Tensor()), input);
  params.grad = results.const_data_ptr();
  params.input = rows.const_data_ptr();
  params.offset = moves.const_data_ptr();
  params.mask = data_or_null(shares);
  if (needs[4]) {
    const Tensor sums = at::empty({s.out_channels}, options);
    at::parallel_for(0, (s.out_channels + 63) / 64, 1, [&](int64_t begin, int64_t end) {
      deform_conv_grad_bias(params, sums.mutable_data_ptr(), begin * 64,
                            std::min(end * 64, s.out_channels));
    });
    grad_bias.copy_(sums);
  }
  if (input.numel() == 0 || !(needs[0] || needs[1] || needs[2] || needs[3])) return grads;

  const int64_t part = tasks.group_part(s);
  params.bfloat16_products = is_product_of_bfloat16(params.dtype, s) &&
                             s.group_out_channels() % 2 == 0 &&
                             std::max(s.taps() * part, s.out_channels) < kMostLeadingDimension;
  const Tensor packed = backward_weight(s, part, weight.contiguous(), params.bfloat16_products);
  params.weight = packed.const_data_ptr();
  if (needs[0]) params.grad_input = grad_input.mutable_data_ptr();
  Tensor weights, moves_y, moves_x, masks;
  if (needs[1]) {
    weights = at::empty(
        {tasks.image_parts, s.channels / part, s.group_out_channels(), s.taps(), part}, options);
    params.grad_weight = weights.mutable_data_ptr();
  }
  const auto maps = [&](void*& data) {
    const Tensor parts = at::empty(
        {tasks.blocks, s.batch, s.offset_groups, s.taps(), s.out_height, s.out_width}, options);
    data = parts.mutable_data_ptr();
    return parts;
  };
  if (needs[2]) {
    moves_y = maps(params.grad_offset_y);
    moves_x = maps(params.grad_offset_x);
  }
  if (needs[3]) masks = maps(params.grad_mask);
  params.tile = deform_tile(s.out_pixels(), s.taps(), 2 * tasks.block * packed.element_size());
  at::parallel_for(0, tasks.count(s), 1,
                   [&](int64_t begin, int64_t end) { deform_conv_backward(params, begin, end); });
  if (needs[1]) store_grad_weight(s, weights, grad_weight);
  if (needs[2]) {
    grad_offset.copy_(
        at::stack({sum_parts(moves_y), sum_parts(moves_x)}, 3).view(grad_offset.sizes()));
  }
  if (needs[3]) grad_mask.copy_(sum_parts(masks).view(grad_mask.sizes()));
  return grads;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("deform_conv2d", &deform_conv2d_cpu);
  m.impl("_deform_conv2d_backward", &deform_conv2d_backward_cpu);
}

}  // namespace tilewright
