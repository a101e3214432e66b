// The formulas of nade for one value, as device code has them; the CPU's loops have registers of
// values (nade_cpu_lanes.h).
#pragma once
#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// 0 where x is so far below that exp overflows.
template <class T>
TILEWRIGHT_HD T nade_sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

// log p of a pixel whose logit is given: log sigmoid(logit), of -logit where the pixel is 0.
template <class T>
TILEWRIGHT_HD T nade_log_prob(T logit, T pixel) {
  const T s = logit * (T(2) * pixel - T(1));
  return min_of(s, T(0)) - std::log1p(std::exp(-std::abs(s)));
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
