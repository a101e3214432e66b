// Scalar math that host and device share. Bilinear sampling lives here, once.
#pragma once
#include <cmath>
#include <cstdint>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

TILEWRIGHT_HD constexpr int64_t ceil_div(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

template <class T>
TILEWRIGHT_HD T min_of(T a, T b) {
  return b < a ? b : a;
}
template <class T>
TILEWRIGHT_HD T max_of(T a, T b) {
  return a < b ? b : a;
}

// The two pixels of one axis between which a sample lies, and their weights. Bilinear
// interpolation is this on both axes: value = sum over y, x of weight_y * weight_x * pixel(y, x).
template <class T>
struct AxisSample {
  int64_t low, high;
  T weight_low, weight_high;
};

// A coordinate outside [-1, size] (or NaN) has no sample: false. Between the border pixel and that
// limit the border pixel's value holds.
template <class T>
TILEWRIGHT_HD bool sample_axis(T coordinate, int64_t size, AxisSample<T>& sample) {
  // Written so that NaN fails it.
  if (!(coordinate >= T(-1) && coordinate <= T(size)) || size == 0) return false;
  coordinate = max_of(coordinate, T(0));
  sample.low = int64_t(coordinate);
  if (sample.low >= size - 1) {
    sample.low = sample.high = size - 1;
    sample.weight_high = T(0);
  } else {
    sample.high = sample.low + 1;
    sample.weight_high = coordinate - T(sample.low);
  }
  sample.weight_low = T(1) - sample.weight_high;
  return true;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
