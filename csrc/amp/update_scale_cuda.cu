// update_scale_ on CUDA: one thread, so that nothing waits for the device.
#include "tilewright/amp/update_scale_args.h"
#include "tilewright/amp/update_scale_kernel.cuh"
#include "tilewright/core/cuda/host.h"

namespace tilewright {
namespace {

void update_scale_cuda(const at::Tensor& scale, const at::Tensor& growth_tracker,
                       const at::Tensor& found_inf, double growth_factor, double backoff_factor,
                       int64_t growth_interval, double min_scale, std::optional<double> max_scale,
                       const std::optional<at::Tensor>& hysteresis_tracker, int64_t hysteresis) {
  const UpdateScaleArgs args{growth_factor, backoff_factor, growth_interval,
                             min_scale,     max_scale,      hysteresis};
  check_update_scale(args, scale, growth_tracker, found_inf, hysteresis_tracker);
  const DeviceGuard guard(found_inf);
  const ScaleState state{mutable_data<float>(scale), mutable_data<int32_t>(growth_tracker),
                         const_data<float>(found_inf),
                         hysteresis_tracker ? mutable_data<int32_t>(*hysteresis_tracker) : nullptr};
  launch<update_scale_kernel>(LaunchConfig{}, state, scale_rule<ScaleRule>(args));
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { m.impl("update_scale_", &update_scale_cuda); }

}  // namespace tilewright
