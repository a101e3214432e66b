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
  T centre_y, centre_x;  // in pixels of the feature map
  RoiAxis<T> y, x;       // along the box's own axes, from its centre
  Rotation<T> rotation;
  T inverse_count;  // 1 / samples per bin
  bool finite;      // a box with a NaN or infinite number has no samples

  // Where a sample lies on the map, from where it lies along the box's axes.
  TILEWRIGHT_HD T map_y(T along_y, T along_x) const {
    return centre_y + rotation.y(along_x, along_y);
  }
  TILEWRIGHT_HD T map_x(T along_y, T along_x) const {
    return centre_x + rotation.x(along_x, along_y);
  }

  // How far rounding can have moved a point of the box or of the map.
  TILEWRIGHT_HD T rounding() const {
    constexpr T kUlps = T(16) * std::numeric_limits<T>::epsilon();
    return kUlps *
           (std::abs(centre_y) + std::abs(centre_x) + std::abs(y.start) + std::abs(x.start));
  }

  // From where samples can touch the pixels [y0, y1] x [x0, x1], and some beside them: a box of any
  // size has to be walked only there.
  TILEWRIGHT_HD AlongBox<T> near(T y0, T y1, T x0, T x1) const {
    const T dy = (y0 + y1) / T(2) - centre_y, dx = (x0 + x1) / T(2) - centre_x;
    const T half_y = (y1 - y0) / T(2) + T(1), half_x = (x1 - x0) / T(2) + T(1);
    const T sine = std::abs(rotation.sine), cosine = std::abs(rotation.cosine);
    const T reach_y = half_y * cosine + half_x * sine + rounding();
    const T reach_x = half_x * cosine + half_y * sine + rounding();
    const T along_y = rotation.inverse().y(dx, dy), along_x = rotation.inverse().x(dx, dy);
    return {along_y - reach_y, along_y + reach_y, along_x - reach_x, along_x + reach_x};
  }

  // The pixels [low, high) on each axis of the map that its samples can touch, and some beside them.
  TILEWRIGHT_HD void rows(int64_t height, int64_t& low, int64_t& high) const {
    pixel_range(centre_y, std::abs(x.start * rotation.sine) + std::abs(y.start * rotation.cosine),
                height, low, high);
  }
  TILEWRIGHT_HD void columns(int64_t width, int64_t& low, int64_t& high) const {
    pixel_range(centre_x, std::abs(x.start * rotation.cosine) + std::abs(y.start * rotation.sine),
                width, low, high);
  }

 private:
  TILEWRIGHT_HD void pixel_range(T centre, T reach, int64_t size, int64_t& low,
                                 int64_t& high) const {
    reach += T(1) + rounding();
    const T from = centre - reach, to = centre + reach + T(1);
    low = from > T(0) ? (from < T(size) ? int64_t(from) : size) : 0;
    high = to < T(size) ? (to > T(0) ? int64_t(to) + 1 : 0) : size;
    high = min_of(high, size);
  }
};

// `roi` is (image, centre x, centre y, width, height, angle) in image coordinates.
template <class T>
TILEWRIGHT_HD RotatedRoiBox<T> make_rotated_roi_box(const T* roi, T scale,
                                                    const RoiAlignGeometry& geometry) {
  const T offset = geometry.aligned ? T(0.5) : T(0);
  T width = roi[3] * scale, height = roi[4] * scale;
  if (!geometry.aligned) {
    width = max_of(width, T(1));
    height = max_of(height, T(1));
  }
  RotatedRoiBox<T> box;
  box.centre_x = roi[1] * scale - offset;
  box.centre_y = roi[2] * scale - offset;
  box.x = make_roi_axis(-width / T(2), width, geometry.pooled_width, geometry.sampling_ratio);
  box.y = make_roi_axis(-height / T(2), height, geometry.pooled_height, geometry.sampling_ratio);
  box.rotation = make_rotation(roi[5]);
  // Of the numbers as given: clamping hides a NaN. Of what was made of them: scaling can overflow.
  box.finite = is_finite(roi[3]) && is_finite(roi[4]) && is_finite(roi[5]) &&
               is_finite(box.centre_x) && is_finite(box.centre_y) &&
               is_finite(box.x.start + box.x.bin) && is_finite(box.y.start + box.y.bin);
  const T count = T(box.y.grid) * T(box.x.grid);
  box.inverse_count = T(1) / max_of(count, T(1));
  return box;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
