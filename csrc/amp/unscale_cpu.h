// What the CPU kernel of unscale_ is called with: a piece of one gradient.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

struct UnscalePiece {
  void* data;  // (count,), neighbours in memory
  int64_t count;
  c10::ScalarType dtype;
  float inv_scale;
  bool write;  // or it is only looked through
};

// Whether a number is inf or NaN, before or after; and where asked for, the sum of squares.
struct UnscaleFound {
  bool bad;
  double squares;
};

TILEWRIGHT_CPU_KERNEL(unscale_piece, UnscaleFound(const UnscalePiece&, bool norm))

}  // namespace tilewright
