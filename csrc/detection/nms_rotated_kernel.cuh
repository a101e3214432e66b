// Rotated boxes for NMS's device code.
#pragma once
#include "tilewright/detection/nms_kernel.cuh"
#include "tilewright/detection/nms_rotated_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct RotatedShape {
  using Coordinate = double;
  RotatedBox<double> box;

  static TILEWRIGHT_DEVICE RotatedShape load(const double* row) {
    return {{row[0], row[1], row[2], row[3], row[4], row[5]}};
  }
  TILEWRIGHT_DEVICE bool exceeds(const RotatedShape& other, double threshold) const {
    return rotated_exceeds(box, other.box, threshold);
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
