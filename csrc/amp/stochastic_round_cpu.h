// What the CPU kernel of stochastic_round_ is called with.
#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

struct StochasticRoundParams {
  const float* input;     // (count,)
  c10::BFloat16* output;  // (count,)
  int64_t count;
  uint32_t tensor;  // its number in the list
  uint64_t seed;
  uint64_t offset;
};

// Blocks [begin, end) of eight elements.
TILEWRIGHT_CPU_KERNEL(stochastic_blocks,
                      void(const StochasticRoundParams&, int64_t begin, int64_t end))

}  // namespace tilewright
