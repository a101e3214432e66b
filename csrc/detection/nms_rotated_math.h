// When one rotated box suppresses another, once, for every machine.
#pragma once
#include "tilewright/detection/rotated_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Boxes without a positive area meet nothing, and nor do those whose area overflows.
TILEWRIGHT_HD bool rotated_has_area(const RotatedBox<double>& box) {
  const double area = box.w * box.h;
  return box.w > 0 && box.h > 0 && area > 0 && area < HUGE_VAL;
}

TILEWRIGHT_HD bool rotated_exceeds(const RotatedBox<double>& kept, const RotatedBox<double>& box,
                                   double threshold) {
  return rotated_has_area(kept) && rotated_has_area(box) && rotated_overlap(kept, box) > threshold;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
