// What the position-sensitive RoI operators (R-FCN, arXiv:1605.06409) have in common, once, for
// every machine: bin (ph, pw) of output channel c looks at input channel (c * PH + ph) * PW + pw
// alone. Its average is separable, as RoIAlign's is:
//   bin = sum over y, x of weight_y(y) * weight_x(x) * pixel(y, x) / count
#pragma once
#include "tilewright/detection/roi_align_math.h"
#include "tilewright/detection/roi_pool_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// What the arguments of the operators say; the same for every box.
struct PsRoiGeometry {
  int64_t pooled_height, pooled_width;
  bool align;              // bilinear samples (ps_roi_align) or whole pixels (ps_roi_pool)
  int64_t sampling_ratio;  // of ps_roi_align
  TILEWRIGHT_HD int64_t bins() const { return pooled_height * pooled_width; }
};

// ps_roi_align: RoIAlign's bins with half a pixel of shift.
template <class T>
struct PsRoiAlignRule {
  using Box = RoiAlignBox<T>;

  TILEWRIGHT_HD static Box box(const T* roi, T scale, const PsRoiGeometry& geometry) {
    return make_roi_box(
        roi, scale, {geometry.pooled_height, geometry.pooled_width, geometry.sampling_ratio, true});
  }

  // Calls tap(pixel, weight) for what one bin takes of one axis; returns the axis's count.
  template <class Tap>
  TILEWRIGHT_HD static T for_each_tap(const RoiAxis<T>& axis, int64_t p, int64_t size, Tap&& tap) {
    int64_t first, last;
    axis.sample_range(p, T(-1), T(size), first, last);
    for (int64_t i = first; i < last; ++i) {
      AxisSample<T> sample;
      if (!sample_axis(axis.coordinate(p, i), size, sample)) continue;
      tap(sample.low, sample.weight_low);
      // A pixel of weight 0 is not part of a sample, even where it is infinite or NaN.
      if (sample.weight_high != T(0)) tap(sample.high, sample.weight_high);
    }
    return T(max_of<int64_t>(axis.grid, 1));
  }

  // What pixel `at` weighs in bin p, over the axis's count.
  TILEWRIGHT_HD static T pixel_weight(const RoiAxis<T>& axis, int64_t p, int64_t at, int64_t size) {
    return axis.pixel_weight(p, at, size) / T(max_of<int64_t>(axis.grid, 1));
  }

  // Pixels that bin p can touch lie in [first, last], and some beside them.
  TILEWRIGHT_HD static bool meets(const RoiAxis<T>& axis, int64_t p, int64_t size, int64_t first,
                                  int64_t last) {
    const T begin = axis.start + T(p) * axis.bin, end = begin + axis.bin;
    const T margin = T(1) + axis.rounding(T(first), T(last)) + axis.rounding(begin, end);
    return min_of(begin, end) - margin <= T(last) && max_of(begin, end) + margin >= T(first);
  }
};

// ps_roi_pool: whole pixels. torchvision cuts bins off at the last row and column, which are never
// pooled; trained weights expect that, so it is the rule here too, for the gradient as well.
template <class T>
struct PsRoiPoolRule {
  using Box = PoolBox<T>;

  TILEWRIGHT_HD static Box box(const T* roi, T scale, const PsRoiGeometry& geometry) {
    return make_pool_box(roi, scale, geometry.pooled_height, geometry.pooled_width, false);
  }

  TILEWRIGHT_HD static void pixels(const PoolAxis<T>& axis, int64_t p, int64_t size, int64_t& first,
                                   int64_t& last) {
    axis.pixels(p, max_of<int64_t>(size - 1, 0), first, last);
  }

  template <class Tap>
  TILEWRIGHT_HD static T for_each_tap(const PoolAxis<T>& axis, int64_t p, int64_t size, Tap&& tap) {
    int64_t first, last;
    pixels(axis, p, size, first, last);
    for (int64_t i = first; i < last; ++i) tap(i, T(1));
    return T(max_of<int64_t>(last - first, 1));
  }

  TILEWRIGHT_HD static T pixel_weight(const PoolAxis<T>& axis, int64_t p, int64_t at,
                                      int64_t size) {
    int64_t first, last;
    pixels(axis, p, size, first, last);
    return at >= first && at < last ? T(1) / T(last - first) : T(0);
  }

  TILEWRIGHT_HD static bool meets(const PoolAxis<T>& axis, int64_t p, int64_t size, int64_t first,
                                  int64_t last) {
    int64_t low, high;
    pixels(axis, p, size, low, high);
    return low <= last && high > first;
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
