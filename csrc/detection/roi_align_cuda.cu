// RoIAlign on CUDA: tensors to kernel parameters and launches. Serves one feature map (roi_align,
// roi_align_rotated) and a pyramid (multiscale_roi_align).
#include <ATen/ops/cat.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/detection/roi_align_kernel.cuh"
#include "tilewright/detection/roi_align_register.h"
#include "tilewright/detection/roi_align_rotated_kernel.cuh"

namespace tilewright {
namespace {

// Forward reads the maps and writes `pooled`, backward the other way round.
template <class T>
RoiAlignParams<device_t<T>> make_params(const RoiAlignArgs& args,
                                        const std::vector<at::Tensor>& maps, const at::Tensor& rois,
                                        const at::Tensor& pooled, at::MemoryFormat layout,
                                        int64_t batch, int64_t channels, bool forward) {
  using Device = device_t<T>;
  using Acc = accumulate_t<Device>;
  RoiAlignParams<Device> params{};
  params.rois = const_data<Acc>(rois);
  params.pooled = data_of<T>(pooled, forward);
  params.num_rois = rois.size(0);
  params.batch = batch;
  params.channels = channels;
  params.geometry = args.geometry();
  params.pyramid = args.pyramid();
  params.channels_last = layout == at::MemoryFormat::ChannelsLast;
  for (size_t i = 0; i < maps.size(); ++i) {
    params.levels[i] = {data_of<T>(maps[i], !forward), maps[i].size(2), maps[i].size(3),
                        Acc(args.scales[i])};
  }
  return params;
}

// The boxes as the kernels take them.
at::Tensor device_rois(const RoiAlignArgs& args, const at::Tensor& given, at::ScalarType features) {
  const at::Tensor rois = accumulate_type_rois(given, features);
  if (!args.rotated) return rois;
  const at::Tensor angle = rois.slice(1, 5);
  return at::cat({rois.slice(1, 0, 5), angle.cos(), angle.sin()}, 1);
}

at::Tensor align_rois(const RoiAlignArgs& args, at::TensorList features,
                      const at::Tensor& given_rois) {
  check_roi_align(args, features, given_rois);
  const DeviceGuard guard(features[0]);
  const auto layout = roi_align_layout(features);
  const auto dtype = features[0].scalar_type();
  const at::Tensor rois = device_rois(args, given_rois, dtype);
  std::vector<at::Tensor> maps;
  for (const at::Tensor& map : features) maps.push_back(map.contiguous(layout));
  at::Tensor pooled = roi_align_output(args, features, given_rois);
  dispatch_floating(args.op, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto params = make_params<T>(args, maps, rois, pooled, layout, features[0].size(0),
                                       features[0].size(1), true);
    const LaunchConfig config = linear_config(pooled.numel());
    if (args.rotated) {
      launch<roi_align_rotated_forward_kernel<device_t<T>>>(config, params);
    } else {
      launch<roi_align_forward_kernel<device_t<T>>>(config, params);
    }
  });
  return pooled;
}

std::vector<at::Tensor> align_rois_backward(const RoiAlignArgs& args, const at::Tensor& given_grad,
                                            const at::Tensor& given_rois,
                                            const c10::SymInt& sym_batch,
                                            const c10::SymInt& sym_channels,
                                            c10::SymIntArrayRef heights,
                                            c10::SymIntArrayRef widths) {
  const int64_t batch = sym_batch.expect_int(), channels = sym_channels.expect_int();
  check_roi_align_backward(args, given_grad, given_rois, channels, heights, widths);
  const DeviceGuard guard(given_grad);
  const auto layout = given_grad.suggest_memory_format();
  const at::Tensor rois = device_rois(args, given_rois, given_grad.scalar_type());
  const at::Tensor grad = given_grad.contiguous(layout);
  std::vector<at::Tensor> maps = roi_align_grad_inputs(grad, batch, channels, heights, widths);
  if (grad.numel() == 0) {
    for (at::Tensor& map : maps) map.zero_();
    return maps;
  }
  dispatch_floating(args.op, grad.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto params = make_params<T>(args, maps, rois, grad, layout, batch, channels, false);
    for (size_t i = 0; i < maps.size(); ++i) {
      LaunchConfig config =
          linear_config(params.tiled_map(int64_t(i)).blocks() * kTileThreads, kTileThreads);
      using Acc = accumulate_t<device_t<T>>;
      if (args.rotated) {
        config.shared_bytes = shared_bytes<RoiTileParts<RotatedRoiBox<Acc>>>();
        launch<roi_align_rotated_backward_kernel<device_t<T>>>(config, params);
      } else {
        config.shared_bytes = shared_bytes<RoiTileParts<RoiAlignBox<Acc>>>();
        launch<roi_align_backward_kernel<device_t<T>>>(config, params, int64_t(i));
      }
    }
  });
  return maps;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { RoiAlignKernels<align_rois, align_rois_backward>::add_to(m); }

}  // namespace tilewright
