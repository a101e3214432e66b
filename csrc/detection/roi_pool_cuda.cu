// RoIPool on CUDA: tensors to kernel parameters and launches.
#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/detection/roi_checks.h"
#include "tilewright/detection/roi_pool_kernel.cuh"
#include "tilewright/detection/roi_pool_shapes.h"

namespace tilewright {
namespace {

template <class T>
RoiPoolParams<device_t<T>> make_params(const RoiPoolArgs& args, const at::Tensor& map,
                                       const at::Tensor& rois, const at::Tensor& pooled,
                                       const at::Tensor& argmax, at::MemoryFormat layout,
                                       bool forward) {
  using Device = device_t<T>;
  using Acc = accumulate_t<Device>;
  RoiPoolParams<Device> params{};
  params.rois = const_data<Acc>(rois);
  params.map = data_of<T>(map, !forward);
  params.pooled = data_of<T>(pooled, forward);
  params.argmax = data_of<int>(argmax, forward);
  params.num_rois = rois.size(0);
  params.batch = map.size(0);
  params.channels = map.size(1);
  params.height = map.size(2);
  params.width = map.size(3);
  params.pooled_height = args.pooled_height;
  params.pooled_width = args.pooled_width;
  params.spatial_scale = Acc(args.spatial_scale);
  params.channels_last = layout == at::MemoryFormat::ChannelsLast;
  return params;
}

std::tuple<at::Tensor, at::Tensor> roi_pool_cuda(const at::Tensor& input,
                                                 const at::Tensor& given_rois, double spatial_scale,
                                                 int64_t pooled_height, int64_t pooled_width) {
  const RoiPoolArgs args{spatial_scale, pooled_height, pooled_width};
  check_roi_pool(args, input, given_rois);
  check_pixel_index("roi_pool", input.size(2), input.size(3));
  const DeviceGuard guard(input);
  const auto layout = input.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, input.scalar_type());
  const at::Tensor map = input.contiguous(layout);
  const auto outputs = roi_pool_outputs(args, input, given_rois);
  dispatch_floating("roi_pool", input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch<roi_pool_forward_kernel<device_t<T>>>(
        linear_config(std::get<0>(outputs).numel()),
        make_params<T>(args, map, rois, std::get<0>(outputs), std::get<1>(outputs), layout, true));
  });
  return outputs;
}

at::Tensor roi_pool_backward_cuda(const at::Tensor& given_grad, const at::Tensor& given_rois,
                                  const at::Tensor& given_argmax, double spatial_scale,
                                  int64_t pooled_height, int64_t pooled_width, c10::SymInt batch,
                                  c10::SymInt channels, c10::SymInt height, c10::SymInt width) {
  const RoiPoolArgs args{spatial_scale, pooled_height, pooled_width};
  check_roi_pool_backward(args, given_grad, given_rois, given_argmax, channels);
  check_pixel_index("_roi_pool_backward", height.expect_int(), width.expect_int());
  const DeviceGuard guard(given_grad);
  const auto layout = given_grad.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, given_grad.scalar_type());
  const at::Tensor grad = given_grad.contiguous(layout), argmax = given_argmax.contiguous(layout);
  at::Tensor map = empty_grad_input(grad, batch, channels, height, width);
  if (grad.numel() == 0) return map.zero_();
  dispatch_floating("roi_pool", grad.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto params = make_params<T>(args, map, rois, grad, argmax, layout, false);
    LaunchConfig config = linear_config(params.tiled_map().blocks() * kTileThreads, kTileThreads);
    config.shared_bytes = shared_bytes<RoiTileParts<PoolBox<accumulate_t<device_t<T>>>>>();
    launch<roi_pool_backward_kernel<device_t<T>>>(config, params);
  });
  return map;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("roi_pool", &roi_pool_cuda);
  m.impl("_roi_pool_backward", &roi_pool_backward_cuda);
}

}  // namespace tilewright
