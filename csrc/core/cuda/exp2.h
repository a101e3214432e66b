// 2^x in one instruction, for softmax.
#pragma once
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Of float to about two ulp, and 0 where the result is subnormal; -inf gives 0, NaN gives NaN.
#ifdef TILEWRIGHT_SIMT
inline float exp2_of(float x) { return ::exp2f(x); }
#else
TILEWRIGHT_DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif
TILEWRIGHT_DEVICE double exp2_of(double x) { return ::exp2(x); }

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
