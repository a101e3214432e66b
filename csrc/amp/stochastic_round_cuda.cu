// stochastic_round_ on CUDA: a launch for each tensor.
#include <ATen/ATen.h>

#include "tilewright/amp/stochastic_round_args.h"
#include "tilewright/amp/stochastic_round_kernel.cuh"
#include "tilewright/core/cuda/host.h"

namespace tilewright {
namespace {

void stochastic_round_cuda(at::TensorList outputs, at::TensorList inputs,
                           const at::Tensor& rng_state) {
  check_stochastic_round(outputs, inputs, rng_state);
  const DeviceGuard guard(rng_state);
  const RoundedPairs pairs = rounded_pairs(outputs, inputs);
  const at::Tensor state = rng_state.contiguous();
  for (size_t t = 0; t < pairs.outputs.size(); ++t) {
    const int64_t count = pairs.outputs[t].numel();
    if (count == 0) continue;
    launch<stochastic_round_kernel>(
        linear_config(ceil_div(count, kRoundedTogether)),
        StochasticRoundKernelParams{const_data<float>(pairs.inputs[t]),
                                    mutable_data<at::BFloat16>(pairs.outputs[t]),
                                    const_data<int64_t>(state), count, uint32_t(t)});
  }
  store_rounded(outputs, pairs);
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { m.impl("stochastic_round_", &stochastic_round_cuda); }

}  // namespace tilewright
