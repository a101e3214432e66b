// What the CPU kernels of features are called with: a table of values with any strides, cuts.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

struct FeatureTable {
  const void* data;
  c10::ScalarType dtype;
  int64_t row, column;  // strides in elements
};

// The i-th of `sampled` rows: one of each stretch of the table, at an uneven place of it.
inline int64_t sampled_row(int64_t i, int64_t rows, int64_t sampled) {
  if (rows == sampled) return i;
  const int64_t begin = i * rows / sampled, end = (i + 1) * rows / sampled;
  return begin + int64_t(uint32_t(i) * 2654435769u) % (end - begin);
}

struct QuantizeParams {
  FeatureTable table;
  const float* cuts;     // (F, max_bin)
  const int32_t* count;  // (F,)
  void* codes;           // (N, F), uint8_t where max_bin <= 255, else int16_t
  int64_t features, max_bin;
};

// The features [first, last) of the sampled rows, as float32: (last - first, sampled).
TILEWRIGHT_CPU_KERNEL(feature_sample, void(const FeatureTable&, int64_t first, int64_t last,
                                           int64_t rows, int64_t sampled, float* values))
TILEWRIGHT_CPU_KERNEL(quantize_rows, void(const QuantizeParams&, int64_t begin, int64_t end))

}  // namespace tilewright
