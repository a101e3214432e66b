// When one rotated box suppresses another on the CPU: the upright boxes around them are compared in
// SIMD registers, and what passes is computed a pair at a time; compiled once per instruction set.
#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/nms_rotated_math.h"
#include "tilewright/detection/nms_walk_kernel.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// What rounding can do to areas, to the boxes around and to overlaps is far less.
constexpr double kGivenAway = 1e-9;

class Exceeds {
 public:
  Exceeds(const NmsCpuParams<double>& p, const NmsQuery<double>&, int64_t i) : p_(p), i_(i) {}

  bool operator()(double* const* boxes, const int64_t* origin, int64_t k, int64_t count,
                  bool) const {
    for (int64_t j = k; j < k + count; ++j) {
      if (passes(boxes, j) && origin[j] >= 0 &&
          rotated_exceeds(p_.shapes[origin[j]], p_.shapes[i_], p_.threshold)) {
        return true;
      }
    }
    return false;
  }

 private:
  // The filter again, for the one lane.
  bool passes(double* const* boxes, int64_t j) const {
    const auto side = [&](NmsArray low, NmsArray high) {
      return min_of(boxes[high][j], p_.boxes[high][i_]) - max_of(boxes[low][j], p_.boxes[low][i_]);
    };
    const double width = side(kNmsX1, kNmsX2), height = side(kNmsY1, kNmsY2);
    const double bound = boxes[kNmsBound][j] + p_.boxes[kNmsBound][i_];
    return width > 0 && height > 0 && width * height > bound;
  }

  const NmsCpuParams<double>& p_;
  int64_t i_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

NmsCpuKernels<double> TILEWRIGHT_ON_MACHINE(nms_rotated_kernels)() {
  return nms_walk_kernels<double, Exceeds>();
}

void TILEWRIGHT_ON_MACHINE(nms_load_rotated)(const double* rows, const int64_t* order,
                                             double threshold, int64_t begin, int64_t end,
                                             double* const* out, RotatedBox<double>* shapes) {
  for (int64_t i = begin; i < end; ++i) {
    const double* const row = rows + 5 * order[i];
    const RotatedBox<double> box = make_rotated_box(row[0], row[1], row[2], row[3], row[4]);
    double half_width, half_height;
    rotated_extent(box, half_width, half_height);
    half_width += kGivenAway * (half_width + half_height) + 1e-15 * std::abs(box.cx);
    half_height += kGivenAway * (half_width + half_height) + 1e-15 * std::abs(box.cy);
    out[kNmsX1][i] = box.cx - half_width;
    out[kNmsY1][i] = box.cy - half_height;
    out[kNmsX2][i] = box.cx + half_width;
    out[kNmsY2][i] = box.cy + half_height;
    const double area = rotated_has_area(box) ? box.w * box.h : 0;
    out[kNmsBound][i] = nms_bound(area, threshold, kGivenAway);
    shapes[i] = box;
  }
}

}  // namespace tilewright
