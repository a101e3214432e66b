// deform_aggregate on the CPU: tensors to raw pointers, and how the work is cut for threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "tilewright/deform/deform_aggregate_args.h"
#include "tilewright/deform/deform_aggregate_cpu.h"
#include "tilewright/deform/deform_args.h"

namespace tilewright {
namespace {

at::Tensor deform_aggregate_cpu(const at::Tensor& input, const at::Tensor& offset,
                                const at::Tensor& mask, at::IntArrayRef kernel,
                                at::IntArrayRef stride, at::IntArrayRef padding,
                                at::IntArrayRef dilation, int64_t groups, double offset_scale) {
  constexpr int64_t kPieceProducts = 32768;  // no thread is worth less
  const DeformAggregateArgs args{"deform_aggregate", kernel, stride,      padding,
                                 dilation,           groups, offset_scale};
  check_deform_aggregate(args, input, offset, mask);
  at::Tensor output = deform_aggregate_output(args, input);
  if (output.numel() == 0) return output;
  DeformAggregateCpuParams params{};
  params.dtype = input.scalar_type();
  params.shape = deform_aggregate_shape(args, input);
  const DeformAggregateShape& s = params.shape;
  const at::Tensor pixels = input.contiguous(), moves = deform_sums_of(offset, input),
                   shares = deform_sums_of(mask, input);
  params.input = pixels.const_data_ptr();
  params.offset = moves.const_data_ptr();
  params.mask = shares.const_data_ptr();
  params.output = output.mutable_data_ptr();
  at::parallel_for(
      0, s.batch * s.out_pixels(), ceil_div(kPieceProducts, s.channels * s.taps()),
      [&](int64_t begin, int64_t end) { deform_aggregate_forward(params, begin, end); });
  return output;
}

// Room for the blocks' shares of a gradient: the gradient itself where there is one block.
at::Tensor block_sums(const at::Tensor& grad, int64_t blocks, at::ScalarType sums) {
  if (blocks == 1 && grad.scalar_type() == sums) return grad.unsqueeze(0);
  std::vector<int64_t> sizes = grad.sizes().vec();
  sizes.insert(sizes.begin(), blocks);
  return at::empty(sizes, grad.options().dtype(sums));
}

// The sum over the blocks, in order.
void store_block_sums(const at::Tensor& parts, at::Tensor& grad) {
  if (parts.const_data_ptr() == grad.const_data_ptr()) return;
  at::Tensor sum = parts[0];
  for (int64_t i = 1; i < parts.size(0); ++i) sum.add_(parts[i]);
  grad.copy_(sum);
}

DeformAggregateGrads deform_aggregate_backward_cpu(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& offset,
    const at::Tensor& mask, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups, double offset_scale, DeformAggregateNeeds needs) {
  const DeformAggregateArgs args{
      "_deform_aggregate_backward", kernel, stride, padding, dilation, groups, offset_scale};
  check_deform_aggregate_backward(args, grad, input, offset, mask);
  auto grads = deform_aggregate_grads(input, offset, mask, needs);
  auto& [grad_input, grad_offset, grad_mask] = grads;
  if (input.numel() == 0) {
    std::apply([](auto&... tensor) { (tensor.zero_(), ...); }, grads);
    return grads;
  }
  DeformAggregateCpuParams params{};
  params.dtype = input.scalar_type();
  params.shape = deform_aggregate_shape(args, input);
  const DeformAggregateTasks tasks(params.shape);
  const at::Tensor results = grad.contiguous(), pixels = input.contiguous(),
                   moves = deform_sums_of(offset, input), shares = deform_sums_of(mask, input);
  params.grad = results.const_data_ptr();
  params.input = pixels.const_data_ptr();
  params.offset = moves.const_data_ptr();
  params.mask = shares.const_data_ptr();
  if (needs[0]) params.grad_input = grad_input.mutable_data_ptr();
  at::Tensor offsets, masks;
  if (needs[1]) {
    offsets = block_sums(grad_offset, tasks.blocks, deform_sums_type(input));
    params.grad_offset = offsets.mutable_data_ptr();
  }
  if (needs[2]) {
    masks = block_sums(grad_mask, tasks.blocks, deform_sums_type(input));
    params.grad_mask = masks.mutable_data_ptr();
  }
  at::parallel_for(0, tasks.count(params.shape), 1, [&](int64_t begin, int64_t end) {
    deform_aggregate_backward(params, begin, end);
  });
  if (needs[1]) store_block_sums(offsets, grad_offset);
  if (needs[2]) store_block_sums(masks, grad_mask);
  return grads;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("deform_aggregate", &deform_aggregate_cpu);
  m.impl("_deform_aggregate_backward", &deform_aggregate_backward_cpu);
}

}  // namespace tilewright
