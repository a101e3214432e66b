// Rotated RoIAlign's formula, once, for every machine: RoIAlign's grid of samples, laid along the
// axes of the box and turned with it.
#pragma once
#include "tilewright/detection/roi_align_math.h"
#include "tilewright/detection/rotated_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Stretches of a box's own axes, from its centre.
template <class T>
struct AlongBox {
  T y_low, y_high, x_low, x_high;
};

template <class T>
struct RotatedRoiBox {
  RotatedBox<T> box;  // in pixels of the feature map
  RoiAxis<T> y, x;    // along the box's own axes, from its centre
  T inverse_count;    // 1 / samples per bin
  bool finite;        // a box with a NaN or infinite number has no samples

  // From where samples can touch the pixels [y0, y1] x [x0, x1], and some beside them: a box of any
  // size has to be walked only there.
  TILEWRIGHT_HD AlongBox<T> near(T y0, T y1, T x0, T x1) const {
    T along_x, along_y;
    unrotated_point(box, (x0 + x1) / T(2), (y0 + y1) / T(2), along_x, along_y);
    const T half_y = (y1 - y0) / T(2) + T(1), half_x = (x1 - x0) / T(2) + T(1);
    const T sine = std::abs(box.sin), cosine = std::abs(box.cos);
    // How far rounding can have moved points along each axis of the box.
    const T moved_y = std::abs(box.cy) * cosine + std::abs(box.cx) * sine + std::abs(y.start) +
                      std::abs(x.start) * sine * cosine;
    const T moved_x = std::abs(box.cx) * cosine + std::abs(box.cy) * sine + std::abs(x.start) +
                      std::abs(y.start) * sine * cosine;
    const T reach_y = half_y * cosine + half_x * sine + kUlps * moved_y;
    const T reach_x = half_x * cosine + half_y * sine + kUlps * moved_x;
    return {along_y - reach_y, along_y + reach_y, along_x - reach_x, along_x + reach_x};
  }

  // The pixels [low, high) on each axis of the map that its samples can touch, and some beside
  // them.
  TILEWRIGHT_HD void rows(int64_t height, int64_t& low, int64_t& high) const {
    T half_width, half_height;
    rotated_extent(box, half_width, half_height);
    pixel_range(box.cy, half_height, height, low, high);
  }
  TILEWRIGHT_HD void columns(int64_t width, int64_t& low, int64_t& high) const {
    T half_width, half_height;
    rotated_extent(box, half_width, half_height);
    pixel_range(box.cx, half_width, width, low, high);
  }

 private:
  static constexpr T kUlps = T(16) * std::numeric_limits<T>::epsilon();

  TILEWRIGHT_HD void pixel_range(T centre, T reach, int64_t size, int64_t& low,
                                 int64_t& high) const {
    reach += T(1) +
             kUlps * (std::abs(box.cx) + std::abs(box.cy) + std::abs(y.start) + std::abs(x.start));
    const T from = centre - reach, to = centre + reach + T(1);
    low = from > T(0) ? (from < T(size) ? int64_t(from) : size) : 0;
    high = to < T(size) ? (to > T(0) ? int64_t(to) + 1 : 0) : size;
    high = min_of(high, size);
  }
};

// `roi` is (image, centre x, centre y, width, height) in image coordinates; then the angle's cosine
// and sine, which are made once for each box: on a GPU their general case takes local memory.
template <class T>
TILEWRIGHT_HD RotatedRoiBox<T> make_rotated_roi_box(const T* roi, T cosine, T sine, T scale,
                                                    const RoiAlignGeometry& geometry) {
  const T offset = geometry.aligned ? T(0.5) : T(0);
  T width = roi[3] * scale, height = roi[4] * scale;
  if (!geometry.aligned) {
    width = max_of(width, T(1));
    height = max_of(height, T(1));
  }
  RotatedRoiBox<T> grid;
  grid.box = {roi[1] * scale - offset, roi[2] * scale - offset, width, height, cosine, sine};
  grid.x = make_roi_axis(-width / T(2), width, geometry.pooled_width, geometry.sampling_ratio);
  grid.y = make_roi_axis(-height / T(2), height, geometry.pooled_height, geometry.sampling_ratio);
  // Of the numbers as given: clamping hides a NaN. Of what was made of them: scaling can overflow.
  grid.finite = is_finite(roi[3]) && is_finite(roi[4]) && is_finite(cosine) &&
                is_finite(grid.box.cx) && is_finite(grid.box.cy) &&
                is_finite(grid.x.start + grid.x.bin) && is_finite(grid.y.start + grid.y.bin);
  const T count = T(grid.y.grid) * T(grid.x.grid);
  grid.inverse_count = T(1) / max_of(count, T(1));
  return grid;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
