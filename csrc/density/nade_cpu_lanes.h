// The logistic function of SIMD registers.
#pragma once
#include "tilewright/core/cpu/exp2.h"
#include "tilewright/core/log2.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// 1 / (1 + 2^-x log2(e)). exp2_lanes takes exponents up to 127; NaN goes through.
template <class A>
inline at::vec::Vectorized<A> sigmoid_lanes(const at::vec::Vectorized<A>& x) {
  using V = at::vec::Vectorized<A>;
  const V one(A(1));
  const V power = exp2_lanes<5>(min_of(x * V(A(-kLog2E)), V(A(127))));
  return one / (one + power);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
