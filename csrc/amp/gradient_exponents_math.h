// The exponent of a number, for both machines.
#pragma once
#include <cstdint>
#include <cstring>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kExponents = 256;

// 16-bit numbers come as the float32 that they are.
TILEWRIGHT_HD int exponent_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return int(bits >> 23 & 0xff);
}
TILEWRIGHT_HD int exponent_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  const int exponent = int(bits >> 52 & 0x7ff) - 1023 + 127;
  return exponent < 0 ? 0 : exponent > 255 ? 255 : exponent;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
