// When one rotated box suppresses another, once, for every machine.
#pragma once
#include "tilewright/detection/rotated_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Boxes without a positive area meet nothing, and nor do those whose area overflows.
TILEWRIGHT_HD bool rotated_has_area(const RotatedBox<double>& box) {
  const double area = box.w * box.h;
  return box.w > 0 && box.h > 0 && area > 0 && area < HUGE_VAL;
}

// Whether an axis of b has the boxes apart: a cheap filter, and exact where the shared area, a sum
// of four terms, is rounded to a little more than 0.
TILEWRIGHT_HD bool rotated_apart(const RotatedBox<double>& a, const RotatedBox<double>& b) {
  double x, y;
  unrotated_point(b, a.cx, a.cy, x, y);
  const double cos = std::abs(a.cos * b.cos + a.sin * b.sin);
  const double sin = std::abs(a.sin * b.cos - a.cos * b.sin);
  return std::abs(x) >= 0.5 * (b.w + a.w * cos + a.h * sin) ||
         std::abs(y) >= 0.5 * (b.h + a.w * sin + a.h * cos);
}

TILEWRIGHT_HD bool rotated_exceeds(const RotatedBox<double>& kept, const RotatedBox<double>& box,
                                   double threshold) {
  return rotated_has_area(kept) && rotated_has_area(box) && !rotated_apart(kept, box) &&
         !rotated_apart(box, kept) && rotated_overlap(kept, box) > threshold;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
