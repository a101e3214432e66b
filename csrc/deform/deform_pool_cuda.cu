// Deformable RoI pooling on CUDA: tensors to kernel parameters and launches.
#include <ATen/ATen.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/deform/deform_args.h"
#include "tilewright/deform/deform_pool_args.h"
#include "tilewright/deform/deform_pool_kernel.cuh"
#include "tilewright/deform/gradient_sums_host.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

using at::Tensor;

// What both passes read, as long as the kernels run.
struct Inputs {
  Inputs(const DeformPoolArgs& args, const Tensor& input, const Tensor& given_rois,
         const Tensor& given_offset)
      : shape(deform_pool_shape(args, input, given_rois, given_offset)),
        rois(accumulate_type_rois(given_rois, input.scalar_type())),
        offset(deform_sums_of(given_offset, input)),
        maps(deform_pool_maps(shape, input)) {}

  template <class T>
  DeformPoolParams<device_t<T>> params(const Tensor& pooled, bool forward) const {
    using Acc = accumulate_t<device_t<T>>;
    DeformPoolParams<device_t<T>> out{};
    out.shape = shape;
    out.rois = const_data<Acc>(rois);
    out.offset = const_data<Acc>(offset);
    out.maps = const_data<T>(maps);
    out.pooled = data_of<T>(pooled, forward);
    out.pooled_last = is_channels_last(pooled);
    return out;
  }

  DeformPoolShape shape;
  Tensor rois, offset, maps;
};

Tensor deform_pool_cuda(const Tensor& input, const Tensor& rois, const Tensor& offset,
                        double spatial_scale, at::IntArrayRef pooled, at::IntArrayRef parts,
                        int64_t group_size, int64_t samples, double gamma,
                        bool position_sensitive) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  check_deform_pool(args, input, rois, offset);
  const DeviceGuard guard(input);
  Tensor output = deform_pool_output(args, input, rois);
  if (output.numel() == 0) return output;
  const Inputs inputs(args, input, rois, offset);
  dispatch_floating(args.op(), input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch<deform_pool_forward_kernel<device_t<T>>>(linear_config(output.numel()),
                                                    inputs.params<T>(output, true));
  });
  return output;
}

DeformPoolGrads deform_pool_backward_cuda(const Tensor& grad, const Tensor& input,
                                          const Tensor& rois, const Tensor& offset,
                                          double spatial_scale, at::IntArrayRef pooled,
                                          at::IntArrayRef parts, int64_t group_size,
                                          int64_t samples, double gamma, bool position_sensitive,
                                          DeformPoolNeeds needs) {
  const DeformPoolArgs args = deform_pool_args(spatial_scale, pooled, parts, group_size, samples,
                                               gamma, position_sensitive);
  check_deform_pool_backward(args, grad, input, rois, offset);
  const DeviceGuard guard(input);
  auto grads = deform_pool_grads(input, offset, needs);
  auto& [grad_input, grad_offset] = grads;
  if (grad.numel() == 0 || input.numel() == 0) {
    grad_input.zero_();
    grad_offset.zero_();
    return grads;
  }
  const Inputs inputs(args, input, rois, offset);
  const DeformPoolShape& s = inputs.shape;
  const Tensor results = grad.contiguous(grad.suggest_memory_format());
  const auto options = inputs.offset.options();
  dispatch_floating(args.op(), input.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Device = device_t<T>;
    using Acc = accumulate_t<Device>;
    auto params = inputs.params<T>(results, false);
    // A bin's samples on the map at most: adaptive ones lie half a pixel apart or more.
    const double samples_of_bin =
        double(samples > 0 ? samples * samples : (2 * s.height + 3) * (2 * s.width + 3));
    GradientSumsOnDevice<Acc> sums(needs[0], inputs.maps.sizes(), options,
                                   4 * double(s.rois * s.bins()) * samples_of_bin);
    Tensor moves;
    if (needs[1]) {
      moves = at::empty({1, s.rois, s.classes, 2, s.pooled_height, s.pooled_width}, options);
      params.grad_moves = mutable_data<Acc>(moves);
    }
    LaunchConfig config =
        linear_config(s.rois * s.classes * s.bins() * kDeformPoolThreads, kDeformPoolThreads);
    config.shared_bytes = shared_bytes<DeformPoolParts<Acc>>();
    sums.run([&](const GradientSums<Acc>& grad_maps) {
      params.grad_maps = grad_maps;
      launch<deform_pool_backward_kernel<Device>>(config, params);
    });
    if (needs[0]) {
      grad_input.copy_(sums.values.permute({0, 4, 1, 2, 3}).reshape(grad_input.sizes()));
    }
    if (needs[1]) store_grad_offset(s, moves, grad_offset);
  });
  return grads;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("_deform_pool", &deform_pool_cuda);
  m.impl("_deform_pool_backward", &deform_pool_backward_cuda);
}

}  // namespace tilewright
