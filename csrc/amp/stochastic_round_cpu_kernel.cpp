// The loop of stochastic_round_, compiled once per instruction set.
#include <algorithm>

#include "tilewright/amp/stochastic_round_cpu.h"
#include "tilewright/amp/stochastic_round_math.h"

namespace tilewright {

void TILEWRIGHT_ON_MACHINE(stochastic_blocks)(const StochasticRoundParams& p, int64_t begin,
                                              int64_t end) {
  for (int64_t block = begin; block < end; ++block) {
    const Philox noise = rounding_noise(block, p.tensor, p.seed, p.offset);
    const int64_t first = block * kRoundedTogether;
    const int places = int(std::min<int64_t>(kRoundedTogether, p.count - first));
    for (int i = 0; i < places; ++i) {
      p.output[first + i] = c10::BFloat16(
          stochastic_bfloat16(p.input[first + i], noise_of(noise, i)), c10::BFloat16::from_bits());
    }
  }
}

}  // namespace tilewright
