// Rotated boxes for NMS's device code.
#pragma once
#include "tilewright/detection/nms_kernel.cuh"
#include "tilewright/detection/nms_rotated_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct RotatedShape {
  using Coordinate = double;
  RotatedBox<double> box;
  double half_width, half_height;  // of the upright box around it

  static TILEWRIGHT_DEVICE RotatedShape load(const double* row) {
    RotatedShape shape;
    shape.box = make_rotated_box(row[0], row[1], row[2], row[3], row[4]);
    rotated_extent(shape.box, shape.half_width, shape.half_height);
    return shape;
  }
  TILEWRIGHT_DEVICE bool exceeds(const RotatedShape& other, double threshold) const {
    // Most pairs are far apart.
    if (std::abs(box.cx - other.box.cx) > half_width + other.half_width ||
        std::abs(box.cy - other.box.cy) > half_height + other.half_height) {
      return false;
    }
    return rotated_exceeds(box, other.box, threshold);
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
