// The loop of gradient_exponents, compiled once per instruction set.
#include <algorithm>

#include "tilewright/amp/gradient_exponents_cpu.h"
#include "tilewright/amp/gradient_exponents_math.h"
#include "tilewright/core/dispatch.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {

// Neighbours count in tables of their own: most have the same exponent, and an addition would wait
// for the one before.
template <class T>
void count_typed(const T* data, int64_t count, int64_t* counts) {
  using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
  constexpr int kTables = 4;
  constexpr int64_t kRun = int64_t(1) << 30;  // what 32 bits count
  uint32_t tables[kTables][kExponents];
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = std::min(count, begin + kRun);
    std::fill(&tables[0][0], &tables[0][0] + kTables * kExponents, 0);
    int64_t i = begin;
    for (; i + kTables <= end; i += kTables) {
      for (int t = 0; t < kTables; ++t) ++tables[t][exponent_of(Wide(data[i + t]))];
    }
    for (; i < end; ++i) ++tables[0][exponent_of(Wide(data[i]))];
    for (int e = 0; e < kExponents; ++e) {
      for (int t = 0; t < kTables; ++t) counts[e] += tables[t][e];
    }
  }
}

}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(count_exponents)(const void* data, c10::ScalarType dtype, int64_t count,
                                            int64_t* counts) {
  dispatch_floating("gradient_exponents", dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    count_typed(static_cast<const T*>(data), count, counts);
  });
}

}  // namespace tilewright
