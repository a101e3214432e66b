// Rows of pixels in memory, of a feature map or of a window onto one.
#pragma once
#include <cstdint>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class Pixel>
struct PixelRows {
  Pixel* data;
  int64_t row_stride, pixel_stride;  // elements
  // Row `first` lies at data; row `first + wrap` again, in a window that moves down the map.
  int64_t first = 0, wrap = INT64_MAX;

  // From data, in elements.
  int64_t offset(int64_t y) const {
    const int64_t row = y - first;
    return (row < wrap ? row : row - wrap) * row_stride;
  }
  PixelRows<const Pixel> read_only() const { return {data, row_stride, pixel_stride, first, wrap}; }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
