// What is done to one gradient, for both machines.
#pragma once
#include <cstdint>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// From here on a number rounds to infinity when it is stored: halfway between the largest number of
// a 16-bit type and what would come next.
inline constexpr float kOverflowOfHalf = 65520.0f;
inline constexpr float kOverflowOfBFloat16 = 0x1.FFp127f;

// Elements that are looked through together, and whose squares are added by themselves.
inline constexpr int64_t kUnscalePiece = 1 << 14;

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
