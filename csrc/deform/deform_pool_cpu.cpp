// Deformable RoI pooling on the CPU: tensors to raw pointers, and how the work is cut for threads.
#include "tilewright/deform/deform_pool_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "tilewright/deform/deform_args.h"
#include "tilewright/deform/deform_pool_args.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

using at::Tensor;

// What both passes read; the tensors behind it are kept.
struct Inputs {
  Inputs(const DeformPoolArgs& args, const Tensor& input, const Tensor& given_rois,
         const Tensor& given_offset)
      : rois(accumulate_type_rois(given_rois, input.scalar_type())),
        offset(deform_sums_of(given_offset, input)) {
    params.dtype = input.scalar_type();
    params.shape = deform_pool_shape(args, input, given_rois, given_offset);
    check_image_indices(args.op(), rois, params.shape.batch);
    maps = deform_pool_maps(params.shape, input);
    params.rois = rois.const_data_ptr();
    params.offset = offset.const_data_ptr();
    params.maps = maps.const_data_ptr();
  }
  Tensor rois, offset, maps;
  DeformPoolCpuParams params{};
};

Tensor deform_pool_cpu(const Tensor& input, const Tensor& rois, const Tensor& offset,
                       double spatial_scale, at::IntArrayRef pooled, at::IntArrayRef parts,
                       int64_t group_size, int64_t samples, double gamma, bool position_sensitive) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  check_deform_pool(args, input, rois, offset);
  Inputs inputs(args, input, rois, offset);
  Tensor output = deform_pool_output(args, input, rois);
  if (output.numel() == 0) return output;
  DeformPoolCpuParams& params = inputs.params;
  params.pooled = output.mutable_data_ptr();
  params.pooled_last = is_channels_last(output);
  at::parallel_for(0, params.shape.rois, 1,
                   [&](int64_t begin, int64_t end) { deform_pool_forward(params, begin, end); });
  return output;
}

DeformPoolGrads deform_pool_backward_cpu(const Tensor& grad, const Tensor& input,
                                         const Tensor& rois, const Tensor& offset,
                                         double spatial_scale, at::IntArrayRef pooled,
                                         at::IntArrayRef parts, int64_t group_size, int64_t samples,
                                         double gamma, bool position_sensitive,
                                         DeformPoolNeeds needs) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  check_deform_pool_backward(args, grad, input, rois, offset);
  auto grads = deform_pool_grads(input, offset, needs);
  auto& [grad_input, grad_offset] = grads;
  if (grad.numel() == 0 || input.numel() == 0) {
    grad_input.zero_();
    grad_offset.zero_();
    return grads;
  }
  Inputs inputs(args, input, rois, offset);
  DeformPoolCpuParams& params = inputs.params;
  const DeformPoolShape& s = params.shape;
  const Tensor results = grad.contiguous(grad.suggest_memory_format());
  params.pooled = const_cast<void*>(results.const_data_ptr());
  params.pooled_last = is_channels_last(results);
  if (needs[0]) params.grad_input = grad_input.mutable_data_ptr();
  params.grad_input_last = is_channels_last(grad_input);
  const DeformPoolTasks tasks(s);
  Tensor moves;
  if (needs[1]) {
    moves = at::zeros({tasks.blocks, s.rois, s.classes, 2, s.pooled_height, s.pooled_width},
                      inputs.offset.options());
    params.grad_moves = moves.mutable_data_ptr();
  }
  at::parallel_for(0, tasks.count(s), 1,
                   [&](int64_t begin, int64_t end) { deform_pool_backward(params, begin, end); });
  if (needs[1]) store_grad_offset(s, moves, grad_offset);
  return grads;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("_deform_pool", &deform_pool_cpu);
  m.impl("_deform_pool_backward", &deform_pool_backward_cpu);
}

}  // namespace tilewright
