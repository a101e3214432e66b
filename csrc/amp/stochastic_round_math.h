// Stochastic rounding of one number, for both machines.
#pragma once
#include <cstdint>
#include <cstring>

#include "tilewright/core/cuda/machine.h"
#include "tilewright/core/philox.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kRoundedTogether = 8;  // by one Philox counter: 16 bits each

// Places [8 block, 8 block + 8) of a tensor. All of the offset counts but its highest 8 bits.
TILEWRIGHT_HD Philox rounding_noise(int64_t block, uint32_t tensor, uint64_t seed,
                                    uint64_t offset) {
  const uint32_t high = uint32_t(offset >> 32) << 8 | uint32_t(uint64_t(block) >> 32);
  return philox(uint32_t(block), high, tensor, uint32_t(offset), seed);
}
TILEWRIGHT_HD uint32_t noise_of(const Philox& noise, int place) {
  return noise.word[place / 2] >> (16 * (place % 2)) & 0xffff;
}

// The bits of a bfloat16. What is cut off grows by the noise, and carries.
TILEWRIGHT_HD uint16_t stochastic_bfloat16(float value, uint32_t noise) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7f800000u) == 0x7f800000u) {
    return uint16_t(bits >> 16 | ((bits & 0x7fffffu) != 0 ? 0x40u : 0u));  // NaN stays NaN
  }
  const uint32_t carried = (bits + noise) >> 16;
  return uint16_t((carried & 0x7f80u) == 0x7f80u ? carried - 1 : carried);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
