// stochastic_round_ on the device: a thread for eight elements.
#pragma once
#include "tilewright/amp/stochastic_round_math.h"
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct StochasticRoundKernelParams {
  const float* input;        // (count,)
  __nv_bfloat16* output;     // (count,)
  const int64_t* rng_state;  // seed, offset
  int64_t count;
  uint32_t tensor;
};

inline __global__ void stochastic_round_kernel(StochasticRoundKernelParams p) {
  const uint64_t seed = uint64_t(ldg(p.rng_state));
  const uint64_t offset = uint64_t(ldg(p.rng_state + 1));
  for (int64_t block : grid_stride(ceil_div(p.count, kRoundedTogether))) {
    const Philox noise = rounding_noise(block, p.tensor, seed, offset);
    const int64_t first = block * kRoundedTogether;
#pragma unroll
    for (int i = 0; i < kRoundedTogether; ++i) {
      if (first + i >= p.count) break;
      const uint16_t bits = stochastic_bfloat16(ldg(p.input + first + i), noise_of(noise, i));
      memcpy(p.output + first + i, &bits, sizeof bits);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
