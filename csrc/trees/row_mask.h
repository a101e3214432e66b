// A share of rows as a mask, drawn where the rows are.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/export.h"

namespace tilewright {

// (N,) bool, on the device of codes (N, F): each row with a chance of `share`, by Philox, so that
// the draw depends on seed and round alone and is the same on every machine. No row may be drawn.
TILEWRIGHT_API at::Tensor draw_row_mask(const at::Tensor& codes, double share, int64_t round,
                                        int64_t seed);

// What every machine demands.
TILEWRIGHT_API void check_draw_row_mask(const at::Tensor& codes, double share, int64_t round);

}  // namespace tilewright
