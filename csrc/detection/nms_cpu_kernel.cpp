// NMS's vectorised test of one box against many, compiled once per instruction set.
#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/nms_cpu.h"
#include "tilewright/detection/nms_math.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

template <class T>
NmsBox<Vec<T>> load_boxes(T* const* arrays, int64_t at, int64_t count) {
  return {load_lanes(arrays[0] + at, count), load_lanes(arrays[1] + at, count),
          load_lanes(arrays[2] + at, count), load_lanes(arrays[3] + at, count),
          load_lanes(arrays[4] + at, count)};
}

// Whether one of kept[begin, end) overlaps candidate i by more than the threshold. Lanes past the
// end are boxes without area at the origin: they overlap nothing.
template <class T>
bool suppressed(const NmsCpuParams<T>& p, int64_t begin, int64_t end, int64_t i) {
  const NmsBox<Vec<T>> box{Vec<T>(p.candidates[0][i]), Vec<T>(p.candidates[1][i]),
                           Vec<T>(p.candidates[2][i]), Vec<T>(p.candidates[3][i]),
                           Vec<T>(p.candidates[4][i])};
  const Vec<T> zero(0), threshold(p.threshold);
  for (int64_t k = begin; k < end; k += kLanes<T>) {
    const NmsBox<Vec<T>> kept = load_boxes(p.kept, k, end - k);
    const Vec<T> intersection = intersection_of(kept, box);
    // Few boxes meet at all: most divisions are saved here.
    if (!any_lane(intersection > zero)) continue;
    if (any_lane((iou_of(kept, box, intersection) > threshold) & (intersection > zero)))
      return true;
  }
  return false;
}

template <class T>
void test(const NmsCpuParams<T>& p, int64_t num_kept, int64_t begin, int64_t end, bool* dropped) {
  for (int64_t i = begin; i < end; ++i) dropped[i - begin] = suppressed(p, 0, num_kept, i);
}

template <class T>
int64_t keep(const NmsCpuParams<T>& p, int64_t tested, int64_t begin, int64_t end,
             const bool* dropped) {
  int64_t kept = tested;
  for (int64_t i = begin; i < end && kept < p.max_output; ++i) {
    if (dropped[i - begin] || suppressed(p, tested, kept, i)) continue;
    for (int a = 0; a < 5; ++a) p.kept[a][kept] = p.candidates[a][i];
    p.kept_index[kept++] = i;
  }
  return kept;
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(nms_test_float)(const NmsCpuParams<float>& p, int64_t num_kept,
                                           int64_t begin, int64_t end, bool* dropped) {
  test(p, num_kept, begin, end, dropped);
}
void TILEWRIGHT_ON_MACHINE(nms_test_double)(const NmsCpuParams<double>& p, int64_t num_kept,
                                            int64_t begin, int64_t end, bool* dropped) {
  test(p, num_kept, begin, end, dropped);
}
int64_t TILEWRIGHT_ON_MACHINE(nms_keep_float)(const NmsCpuParams<float>& p, int64_t tested,
                                              int64_t begin, int64_t end, const bool* dropped) {
  return keep(p, tested, begin, end, dropped);
}
int64_t TILEWRIGHT_ON_MACHINE(nms_keep_double)(const NmsCpuParams<double>& p, int64_t tested,
                                               int64_t begin, int64_t end, const bool* dropped) {
  return keep(p, tested, begin, end, dropped);
}

}  // namespace tilewright
