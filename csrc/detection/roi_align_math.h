// RoIAlign's formula, once, for every machine: where a box's samples lie (Mask R-CNN,
// arXiv:1703.06870) and which level of a pyramid it belongs to (FPN, arXiv:1612.03144).
//
// The average of bilinear samples over a regular grid is separable:
//   bin(p, q) = sum over y, x of weight_y(p, y) * weight_x(q, x) * pixel(y, x) / count
// so everything here is about one axis.
#pragma once
#include <limits>

#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// What the arguments of the operator say; the same for every box.
struct RoiAlignGeometry {
  int64_t pooled_height, pooled_width;
  int64_t sampling_ratio;  // samples per bin and axis; <= 0: one per pixel, adaptive
  bool aligned;            // shift by half a pixel, so that pixel centres are at integers
};

// An adaptive grid has at most this many samples per bin and axis; boxes that would need more are
// farther across than any feature map.
constexpr int64_t kMaxAdaptiveGrid = int64_t(1) << 20;
// What a caller may ask for; a kernel walks its square per bin.
constexpr int64_t kMaxSamplingRatio = 1024;
constexpr int64_t kMaxPyramidLevels = 16;

// How much pixel `at` weighs in the sample at a coordinate.
template <class T>
TILEWRIGHT_HD T pixel_share(T coordinate, int64_t at, int64_t size) {
  AxisSample<T> sample;
  if (!sample_axis(coordinate, size, sample)) return T(0);
  return (sample.low == at ? sample.weight_low : T(0)) +
         (sample.high == at ? sample.weight_high : T(0));
}

// One axis of one box, in pixels of the feature map.
template <class T>
struct RoiAxis {
  T start, bin;
  int64_t grid;  // samples per bin

  TILEWRIGHT_HD T coordinate(int64_t p, int64_t i) const {
    return start + T(p) * bin + (T(i) + T(0.5)) * bin / T(grid);
  }

  // Samples of bin p that can lie in [from, to], and some beside them: only there do long grids
  // have to be walked.
  TILEWRIGHT_HD void sample_range(int64_t p, T from, T to, int64_t& first, int64_t& last) const {
    first = 0;
    last = grid;
    if (grid <= 4 || !(bin > T(0))) return;
    const T step = bin / T(grid), origin = start + T(p) * bin;
    const T margin = T(2) + rounding(from, to) / step;
    const T low = (from - origin) / step - margin, high = (to - origin) / step + margin;
    first = low > T(0) ? (low < T(grid) ? int64_t(low) : grid) : 0;
    last = high < T(grid) ? (high > T(0) ? int64_t(high) : 0) : grid;
  }

  // The bins that can have a sample in [from, to].
  TILEWRIGHT_HD void bin_range(T from, T to, int64_t bins, int64_t& first, int64_t& last) const {
    first = 0;
    last = bins;
    if (!(bin > T(0))) return;
    const T margin = T(0.01) + rounding(from, to) / bin;
    const T low = (from - start) / bin - margin, high = (to - start) / bin + T(1) + margin;
    first = low > T(0) ? (low < T(bins) ? int64_t(low) : bins) : 0;
    last = high < T(bins) ? (high > T(0) ? int64_t(high) : 0) : bins;
  }

  // How far rounding can have moved a coordinate that was meant to lie in [from, to].
  TILEWRIGHT_HD T rounding(T from, T to) const {
    constexpr T kUlps = T(16) * std::numeric_limits<T>::epsilon();
    return kUlps * max_of(max_of(std::abs(from), std::abs(to)), std::abs(start));
  }

  // How much pixel `at` weighs in bin p.
  TILEWRIGHT_HD T pixel_weight(int64_t p, int64_t at, int64_t size) const {
    T weight = T(0);
    int64_t first, last;
    sample_range(p, T(at - 1), T(at + 1), first, last);
#pragma unroll 1  // a few turns, and each of them unrolled costs a GPU thread forty registers
    for (int64_t i = first; i < last; ++i) {
      weight += pixel_share(coordinate(p, i), at, size);
    }
    return weight;
  }
};

template <class T>
struct RoiAlignBox {
  RoiAxis<T> y, x;
  T inverse_count;  // 1 / samples per bin
  bool finite;      // a box with a NaN or infinite coordinate has no samples
};

// x - x is 0 for finite x alone.
template <class T>
TILEWRIGHT_HD bool is_finite(T value) {
  return value - value == T(0);
}

template <class T>
TILEWRIGHT_HD RoiAxis<T> make_roi_axis(T start, T length, int64_t pooled, int64_t sampling_ratio) {
  RoiAxis<T> axis;
  axis.start = start;
  axis.bin = length / T(pooled);
  const T adaptive = std::ceil(axis.bin);
  axis.grid = sampling_ratio > 0               ? sampling_ratio
              : adaptive < T(kMaxAdaptiveGrid) ? (adaptive > T(0) ? int64_t(adaptive) : 0)
                                               : kMaxAdaptiveGrid;
  return axis;
}

template <class T>
TILEWRIGHT_HD RoiAxis<T> make_upright_axis(T low, T high, T scale, int64_t pooled,
                                           const RoiAlignGeometry& geometry) {
  const T offset = geometry.aligned ? T(0.5) : T(0);
  const T start = low * scale - offset, length = high * scale - offset - start;
  return make_roi_axis(start, geometry.aligned ? length : max_of(length, T(1)), pooled,
                       geometry.sampling_ratio);
}

// `roi` is (batch index, x1, y1, x2, y2) in image coordinates.
template <class T>
TILEWRIGHT_HD RoiAlignBox<T> make_roi_box(const T* roi, T scale, const RoiAlignGeometry& geometry) {
  RoiAlignBox<T> box;
  box.x = make_upright_axis(roi[1], roi[3], scale, geometry.pooled_width, geometry);
  box.y = make_upright_axis(roi[2], roi[4], scale, geometry.pooled_height, geometry);
  // Of the corners as given: clamping hides an infinite one. Of the axes: their scaling can
  // overflow.
  box.finite = is_finite(roi[1]) && is_finite(roi[2]) && is_finite(roi[3]) && is_finite(roi[4]) &&
               is_finite(box.x.start + box.x.bin) && is_finite(box.y.start + box.y.bin);
  const T count = T(box.y.grid) * T(box.x.grid);
  box.inverse_count = T(1) / max_of(count, T(1));
  return box;
}

// The image that a box looks at, or -1 where there is none with that index.
template <class T>
TILEWRIGHT_HD int64_t roi_batch(T index, int64_t batch) {
  return index >= T(0) && index < T(batch) ? int64_t(index) : -1;
}

// Which of the pyramid's levels a box is pooled from.
struct PyramidRule {
  int64_t levels;
  int64_t first_level;  // log2 of the first feature map's stride
  int64_t canonical_scale, canonical_level;
};

// floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6), within the levels there are.
// A box without a positive area goes to the first.
template <class T>
TILEWRIGHT_HD int64_t roi_level(const T* roi, const PyramidRule& rule) {
  if (rule.levels == 1) return 0;
  const T side = std::sqrt((roi[3] - roi[1]) * (roi[4] - roi[2]));
  const T level =
      std::floor(T(rule.canonical_level) + std::log2(side / T(rule.canonical_scale)) + T(1e-6)) -
      T(rule.first_level);
  if (!(level > T(0))) return 0;  // NaN too
  return level < T(rule.levels) ? int64_t(level) : rule.levels - 1;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
