// Overlap of two boxes, once, for scalars and SIMD registers and every machine.
#pragma once
#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Built without contraction into fused multiply-adds, so that CPU and CUDA decide alike where an
// overlap is close to the threshold.
template <class V>
struct NmsBox {
  V x1, y1, x2, y2, area;
};

template <class V>
TILEWRIGHT_HD V box_area_of(V x1, V y1, V x2, V y2) {
  return (x2 - x1) * (y2 - y1);
}

template <class V>
TILEWRIGHT_HD V intersection_of(const NmsBox<V>& a, const NmsBox<V>& b) {
  const V width = max_of(min_of(a.x2, b.x2) - max_of(a.x1, b.x1), V(0));
  const V height = max_of(min_of(a.y2, b.y2) - max_of(a.y1, b.y1), V(0));
  return width * height;
}

// NaN where both areas are 0: such pairs do not suppress each other.
template <class V>
TILEWRIGHT_HD V iou_of(const NmsBox<V>& a, const NmsBox<V>& b, const V& intersection) {
  return intersection / (a.area + b.area - intersection);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
