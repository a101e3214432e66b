// Which values are among a node's categories, on every machine.
#pragma once
#include <cstdint>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Whether x, a whole number, is one of categories[begin, end), which ascend.
TILEWRIGHT_HD bool is_among(const int32_t* categories, int64_t begin, int64_t end, float x) {
  if (!(x >= 0 && x < 2147483648.f)) return false;
  const auto category = int32_t(x);
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (categories[middle] == category) return true;
    (categories[middle] < category ? begin : end) = middle + (categories[middle] < category);
  }
  return false;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
