// What the CPU kernel of NMS is called with.
#pragma once
#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

// Boxes by descending score as five arrays: x1, y1, x2, y2, area.
template <class T>
struct NmsCpuParams {
  const T* candidates[5];
  int64_t count;
  T threshold;
  T* kept[5];           // room for `count` boxes
  int64_t* kept_index;  // which candidates they were
  int64_t max_output;
};

// Sets dropped[i - begin] for candidates [begin, end) that one of kept[0, num_kept) suppresses.
TILEWRIGHT_CPU_KERNEL(nms_test_float, void(const NmsCpuParams<float>&, int64_t num_kept,
                                           int64_t begin, int64_t end, bool* dropped))
TILEWRIGHT_CPU_KERNEL(nms_test_double, void(const NmsCpuParams<double>&, int64_t num_kept,
                                            int64_t begin, int64_t end, bool* dropped))

// Goes through candidates [begin, end), which have been tested against kept[0, tested), and appends
// to the kept those that nothing suppresses. Returns the new number of kept boxes.
TILEWRIGHT_CPU_KERNEL(nms_keep_float, int64_t(const NmsCpuParams<float>&, int64_t tested,
                                              int64_t begin, int64_t end, const bool* dropped))
TILEWRIGHT_CPU_KERNEL(nms_keep_double, int64_t(const NmsCpuParams<double>&, int64_t tested,
                                               int64_t begin, int64_t end, const bool* dropped))

}  // namespace tilewright
