// Scores of softmaxes are kept as powers of 2: from natural logarithms there, and back.
#pragma once
#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
