// When one upright box suppresses another, for SIMD registers of boxes; compiled once per
// instruction set.
#include <limits>

#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/nms_math.h"
#include "tilewright/detection/nms_walk_kernel.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
T bound_of(T x1, T y1, T x2, T y2, double threshold) {
  // A side that is not positive meets nothing, even where the area is.
  const T area = x2 > x1 && y2 > y1 ? box_area_of(x1, y1, x2, y2) : T(0);
  return nms_bound(area, threshold, T(32) * std::numeric_limits<T>::epsilon());
}

template <class T>
void load(const T* rows, const int64_t* order, double threshold, int64_t begin, int64_t end,
          T* const* out) {
  for (int64_t i = begin; i < end; ++i) {
    const T* const row = rows + 4 * order[i];
    for (int a = 0; a < 4; ++a) out[a][i] = row[a];
    out[kNmsBound][i] = bound_of(row[0], row[1], row[2], row[3], threshold);
  }
}

// Intersection over union, as every machine computes it.
template <class T>
class Exceeds {
 public:
  Exceeds(const NmsCpuParams<T>& p, const NmsQuery<T>& query, int64_t)
      : box_{query.x1, query.y1, query.x2, query.y2,
             box_area_of(query.x1, query.y1, query.x2, query.y2)},
        threshold_(p.threshold) {}

  bool operator()(T* const* boxes, const int64_t*, int64_t k, int64_t count, bool whole) const {
    const auto part = [&](NmsArray array) {
      return load_lanes(boxes[array] + k, whole ? kLanes<T> : count);
    };
    NmsBox<Vec<T>> kept{part(kNmsX1), part(kNmsY1), part(kNmsX2), part(kNmsY2), Vec<T>(T(0))};
    kept.area = box_area_of(kept.x1, kept.y1, kept.x2, kept.y2);
    const Vec<T> intersection = intersection_of(kept, box_);
    const Vec<T> exceeds =
        (iou_of(kept, box_, intersection) > threshold_) & (intersection > Vec<T>(T(0)));
    const int lanes = (1 << count) - 1;
    return (exceeds.zero_mask() & lanes) != lanes;
  }

 private:
  NmsBox<Vec<T>> box_;
  Vec<T> threshold_;
};

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

#define TILEWRIGHT_NMS_KERNELS(T)                                                                 \
  void TILEWRIGHT_ON_MACHINE(nms_load_##T)(const T* rows, const int64_t* order, double threshold, \
                                           int64_t begin, int64_t end, T* const* out) {           \
    load(rows, order, threshold, begin, end, out);                                                \
  }                                                                                               \
  NmsCpuKernels<T> TILEWRIGHT_ON_MACHINE(nms_kernels_##T)() {                                     \
    return nms_walk_kernels<T, Exceeds<T>>();                                                     \
  }
TILEWRIGHT_NMS_KERNELS(float)
TILEWRIGHT_NMS_KERNELS(double)
#undef TILEWRIGHT_NMS_KERNELS

}  // namespace tilewright
