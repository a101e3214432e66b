// RoIPool on the CPU: tensors to raw pointers, and how the work is cut for threads.
#include "tilewright/detection/roi_pool_cpu.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include "tilewright/core/math.h"
#include "tilewright/detection/roi_checks.h"
#include "tilewright/detection/roi_pool_shapes.h"

namespace tilewright {
namespace {

// Output elements below which a second thread costs more than it brings.
constexpr int64_t kPoolGrain = 8192;

int64_t grain(int64_t elements, int64_t pieces) {
  return 1 + kPoolGrain / (elements / std::max<int64_t>(pieces, 1) + 1);
}

RoiPoolCpuParams make_params(const RoiPoolArgs& args, const at::Tensor& map, const at::Tensor& rois,
                             const at::Tensor& pooled, const at::Tensor& argmax, bool last) {
  RoiPoolCpuParams params{};
  params.dtype = map.scalar_type();
  params.channels_last = last;
  params.rois = rois.const_data_ptr();
  params.num_rois = rois.size(0);
  params.batch = map.size(0);
  params.channels = map.size(1);
  params.height = map.size(2);
  params.width = map.size(3);
  params.pooled_height = args.pooled_height;
  params.pooled_width = args.pooled_width;
  params.spatial_scale = args.spatial_scale;
  params.map = const_cast<void*>(map.const_data_ptr());
  params.pooled = const_cast<void*>(pooled.const_data_ptr());
  params.argmax = const_cast<int32_t*>(argmax.const_data_ptr<int32_t>());
  return params;
}

std::tuple<at::Tensor, at::Tensor> roi_pool_cpu(const at::Tensor& input,
                                                const at::Tensor& given_rois, double spatial_scale,
                                                int64_t pooled_height, int64_t pooled_width) {
  const RoiPoolArgs args{spatial_scale, pooled_height, pooled_width};
  check_roi_pool(args, input, given_rois);
  check_pixel_index("roi_pool", input.size(2), input.size(3));
  const auto layout = input.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, input.scalar_type());
  check_image_indices("roi_pool", rois, input.size(0));
  const at::Tensor map = input.contiguous(layout);
  const auto outputs = roi_pool_outputs(args, input, given_rois);
  const auto& [pooled, argmax] = outputs;
  if (pooled.numel() == 0) return outputs;
  const auto params =
      make_params(args, map, rois, pooled, argmax, layout == at::MemoryFormat::ChannelsLast);
  const int64_t pieces = roi_pool_forward_pieces(params);
  at::parallel_for(0, pieces, grain(pooled.numel(), pieces),
                   [&](int64_t begin, int64_t end) { roi_pool_forward(params, begin, end); });
  return outputs;
}

at::Tensor roi_pool_backward_cpu(const at::Tensor& given_grad, const at::Tensor& given_rois,
                                 const at::Tensor& given_argmax, double spatial_scale,
                                 int64_t pooled_height, int64_t pooled_width, c10::SymInt batch,
                                 c10::SymInt channels, c10::SymInt height, c10::SymInt width) {
  const RoiPoolArgs args{spatial_scale, pooled_height, pooled_width};
  check_roi_pool_backward(args, given_grad, given_rois, given_argmax, channels);
  check_pixel_index("_roi_pool_backward", height.expect_int(), width.expect_int());
  const auto layout = given_grad.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, given_grad.scalar_type());
  check_image_indices("_roi_pool_backward", rois, batch.expect_int());
  const at::Tensor grad = given_grad.contiguous(layout), argmax = given_argmax.contiguous(layout);
  at::Tensor map = empty_grad_input(grad, batch, channels, height, width);
  if (map.numel() == 0) return map;
  const auto params =
      make_params(args, map, rois, grad, argmax, layout == at::MemoryFormat::ChannelsLast);
  const int64_t pieces = roi_pool_backward_pieces(params);
  at::parallel_for(0, pieces, grain(map.numel() + grad.numel(), pieces),
                   [&](int64_t begin, int64_t end) { roi_pool_backward(params, begin, end); });
  return map;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("roi_pool", &roi_pool_cpu);
  m.impl("_roi_pool_backward", &roi_pool_backward_cpu);
}

}  // namespace tilewright
