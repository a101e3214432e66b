// What the CPU kernel of gradient_exponents is called with.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

// Adds to counts (256,) the exponents of data (count,), neighbours in memory.
TILEWRIGHT_CPU_KERNEL(count_exponents,
                      void(const void* data, c10::ScalarType dtype, int64_t count, int64_t* counts))

}  // namespace tilewright
