// ps_roi_align and ps_roi_pool on CUDA: tensors to kernel parameters and launches.
#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/detection/ps_roi_kernel.cuh"
#include "tilewright/detection/ps_roi_register.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

template <class T>
PsRoiParams<device_t<T>> make_params(const PsRoiArgs& args, const at::Tensor& map,
                                     const at::Tensor& rois, const at::Tensor& pooled,
                                     at::MemoryFormat layout, bool forward) {
  using Device = device_t<T>;
  using Acc = accumulate_t<Device>;
  PsRoiParams<Device> params{};
  params.rois = const_data<Acc>(rois);
  params.map = data_of<T>(map, !forward);
  params.pooled = data_of<T>(pooled, forward);
  params.num_rois = rois.size(0);
  params.batch = map.size(0);
  params.channels = map.size(1);
  params.height = map.size(2);
  params.width = map.size(3);
  params.geometry = args.geometry;
  params.spatial_scale = Acc(args.spatial_scale);
  params.channels_last = layout == at::MemoryFormat::ChannelsLast;
  return params;
}

template <class Rule, class T>
void launch_forward(const PsRoiParams<T>& params) {
  launch<ps_roi_forward_kernel<Rule, T>>(linear_config(params.num_rois * params.channels), params);
}

template <class Rule, class T>
void launch_backward(const PsRoiParams<T>& params) {
  LaunchConfig config = linear_config(params.tiled_map().blocks() * kTileThreads, kTileThreads);
  config.shared_bytes = shared_bytes<RoiTileParts<typename Rule::Box>>();
  launch<ps_roi_backward_kernel<Rule, T>>(config, params);
}

at::Tensor pool(const PsRoiArgs& args, const at::Tensor& input, const at::Tensor& given_rois) {
  check_ps_roi(args, input, given_rois);
  const DeviceGuard guard(input);
  const auto layout = input.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, input.scalar_type());
  const at::Tensor map = input.contiguous(layout);
  at::Tensor pooled = ps_roi_output(args, input, given_rois);
  dispatch_floating(args.op, input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = accumulate_t<device_t<T>>;
    const auto params = make_params<T>(args, map, rois, pooled, layout, true);
    if (args.geometry.align) {
      launch_forward<PsRoiAlignRule<Acc>>(params);
    } else {
      launch_forward<PsRoiPoolRule<Acc>>(params);
    }
  });
  return pooled;
}

at::Tensor pool_backward(const PsRoiArgs& args, const at::Tensor& given_grad,
                         const at::Tensor& given_rois, const c10::SymInt& batch,
                         const c10::SymInt& channels, const c10::SymInt& height,
                         const c10::SymInt& width) {
  check_ps_roi_backward(args, given_grad, given_rois, channels);
  const DeviceGuard guard(given_grad);
  const auto layout = given_grad.suggest_memory_format();
  const at::Tensor rois = accumulate_type_rois(given_rois, given_grad.scalar_type());
  const at::Tensor grad = given_grad.contiguous(layout);
  at::Tensor map = empty_grad_input(grad, batch, channels, height, width);
  if (grad.numel() == 0) return map.zero_();
  dispatch_floating(args.op, grad.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = accumulate_t<device_t<T>>;
    const auto params = make_params<T>(args, map, rois, grad, layout, false);
    if (args.geometry.align) {
      launch_backward<PsRoiAlignRule<Acc>>(params);
    } else {
      launch_backward<PsRoiPoolRule<Acc>>(params);
    }
  });
  return map;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { PsRoiKernels<pool, pool_backward>::add_to(m); }

}  // namespace tilewright
