// The one convention for rotated boxes, for every machine: (cx, cy, w, h, angle), the angle in
// radians, positive counter-clockwise as seen in the image, where y points down.
#pragma once
#include <cmath>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct Rotation {
  T cosine, sine;

  // Where a point of the upright box lies after the turn; both relative to the centre.
  TILEWRIGHT_HD T x(T dx, T dy) const { return dx * cosine + dy * sine; }
  TILEWRIGHT_HD T y(T dx, T dy) const { return dy * cosine - dx * sine; }
  // The way back.
  TILEWRIGHT_HD Rotation inverse() const { return {cosine, -sine}; }
};

template <class T>
TILEWRIGHT_HD Rotation<T> make_rotation(T angle) {
  return {std::cos(angle), std::sin(angle)};
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
