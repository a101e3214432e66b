// Where the bins of RoIPool (Fast R-CNN, arXiv:1504.08083) and of position-sensitive RoIPool
// (R-FCN, arXiv:1605.06409) lie, once, for every machine: boxes are rounded to whole pixels, and a
// bin is a rectangle of them. Bin edges are computed as torchvision computes them, in the type of
// the sums, so that both pool the same pixels.
#pragma once
#include <limits>

#include "tilewright/detection/roi_align_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Boxes are cut off this far out: farther than any map reaches, and safe to add up.
constexpr int64_t kMaxPoolCoordinate = int64_t(1) << 40;

template <class T>
TILEWRIGHT_HD int64_t pool_coordinate(T scaled) {
  const T limit = T(kMaxPoolCoordinate), rounded = std::round(scaled);
  if (!(rounded > -limit)) return -kMaxPoolCoordinate;  // NaN too
  return rounded < limit ? int64_t(rounded) : kMaxPoolCoordinate;
}

// One axis of one box, in pixels of the map.
template <class T>
struct PoolAxis {
  int64_t start;
  T bin;  // pixels per bin

  // The pixels [first, last) of bin p, of those in [0, limit).
  TILEWRIGHT_HD void pixels(int64_t p, int64_t limit, int64_t& first, int64_t& last) const {
    first = start + int64_t(std::floor(T(p) * bin));
    last = start + int64_t(std::ceil(T(p + 1) * bin));
    first = min_of(max_of<int64_t>(first, 0), limit);
    last = min_of(max_of<int64_t>(last, 0), limit);
  }

  // The bins that can hold pixel `at`, and a few beside them.
  TILEWRIGHT_HD void bin_range(int64_t at, int64_t bins, int64_t& first, int64_t& last) const {
    const T margin = T(2) + T(8) * std::numeric_limits<T>::epsilon() * T(bins);
    const T low = T(at - start) / bin - margin, high = T(at - start + 1) / bin + margin;
    first = low > T(0) ? (low < T(bins) ? int64_t(low) : bins) : 0;
    last = high < T(bins) ? (high > T(0) ? int64_t(high) : 0) : bins;
  }
};

template <class T>
struct PoolBox {
  PoolAxis<T> y, x;
  bool finite;  // a box with a NaN or infinite coordinate has no pixels
};

// `inclusive`: whether the pixel at `high` belongs to the box. No box is less than a pixel across.
template <class T>
TILEWRIGHT_HD PoolAxis<T> make_pool_axis(T low, T high, T scale, int64_t pooled, bool inclusive) {
  PoolAxis<T> axis;
  axis.start = pool_coordinate(low * scale);
  const int64_t length = pool_coordinate(high * scale) - axis.start + (inclusive ? 1 : 0);
  axis.bin = T(max_of<int64_t>(length, 1)) / T(pooled);
  return axis;
}

// `roi` is (batch index, x1, y1, x2, y2) in image coordinates.
template <class T>
TILEWRIGHT_HD PoolBox<T> make_pool_box(const T* roi, T scale, int64_t pooled_height,
                                       int64_t pooled_width, bool inclusive) {
  PoolBox<T> box;
  box.x = make_pool_axis(roi[1], roi[3], scale, pooled_width, inclusive);
  box.y = make_pool_axis(roi[2], roi[4], scale, pooled_height, inclusive);
  box.finite = true;
  for (int i = 1; i < 5; ++i) box.finite = box.finite && is_finite(roi[i] * scale);
  return box;
}

// Whether a later pixel of a bin replaces the greatest so far: the first greatest pixel wins, and
// the first NaN wins over all numbers.
template <class T>
TILEWRIGHT_HD bool pool_replaces(T value, T best) {
  return value > best || (value != value && best == best);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
