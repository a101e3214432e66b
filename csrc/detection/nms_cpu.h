// What the CPU kernels of NMS are called with.
#pragma once
#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/detection/rotated_math.h"

namespace tilewright {

// Boxes as five arrays: x1, y1, x2, y2 and the box's share of the overlap below which a pair is
// surely under the threshold: a pair can exceed it only if intersection > bound + bound. A bound of
// +inf marks a box that meets nothing, -inf one so small that only the division can tell.
constexpr int kNmsArrays = 5;
enum NmsArray { kNmsX1, kNmsY1, kNmsX2, kNmsY2, kNmsBound };

// The kept boxes by size and place, so that a candidate meets only those that can reach the
// threshold with it: a hash table of buckets, one for the boxes of like width and height in one
// cell of a grid of that size. All memory is the caller's.
template <class T>
struct NmsIndex {
  T* boxes
      [kNmsArrays];    // a bucket after another, with room for every box; places not in use are 0,
                       // and so is a register's width of them behind the last bucket
  int64_t* origin;     // of rotated boxes: which candidate is in a place, -1 for none
  int32_t* buckets;    // (2^bits, 2): where a bucket begins, and the end of what it holds
  uint64_t* occupied;  // a bit per bucket that holds a box
  int32_t* bucket_of;  // (count,): the bucket of each candidate
  int bits;
  // Boxes that reach the threshold with each other overlap, along each axis, by `overlap` of the
  // longer side at least, and one of length w begins at most (w - overlap * w') / divisor before
  // one of length w'.
  double overlap, divisor;
  // Sides are of one class if their bits as float64 agree above this one; cells are
  // 2^cells_per_side to the side of a class.
  int class_shift, cells_per_side;
};

template <class T>
struct NmsCpuParams {
  // Candidates of one class by descending score. The kept ones are moved to the front as the walk
  // goes on.
  T* boxes[kNmsArrays];
  int64_t count;
  T threshold;
  // Rotated boxes: `boxes` are the upright ones around them, `shapes` they themselves, and `origin`
  // tells which candidate a kept box was. Null for upright ones.
  const RotatedBox<T>* shapes;  // (count,)
  int64_t* origin;              // (count,)
  bool* keep;                   // (count,)
  int64_t max_output;
  const NmsIndex<T>* index;  // of the kept boxes, or null
};

// How far the walk is.
struct NmsProgress {
  int64_t visited = 0;  // candidates
  int64_t moved = 0;    // kept boxes that can suppress, at the front of the arrays
  int64_t kept = 0;
};

template <class T>
struct NmsCpuKernels {
  // Sets dropped[i - begin] for candidates [begin, end) that a kept box suppresses.
  void (*test)(const NmsCpuParams<T>&, const NmsProgress&, int64_t begin, int64_t end,
               bool* dropped);
  // Visits candidates up to `end`, of which `dropped` tells whether a box that was kept before them
  // suppresses them (null: not known), and keeps what nothing suppresses.
  void (*settle)(const NmsCpuParams<T>&, NmsProgress&, int64_t end, const bool* dropped);
  // Fills index.bucket_of[begin, end), for the kept boxes and the candidates to come.
  void (*find_buckets)(const NmsCpuParams<T>&, const NmsIndex<T>&, const NmsProgress&,
                       int64_t begin, int64_t end);
  // Then lays the buckets out and puts the kept boxes into theirs.
  void (*build_index)(const NmsCpuParams<T>&, const NmsIndex<T>&, const NmsProgress&);
};
TILEWRIGHT_CPU_KERNEL(nms_kernels_float, NmsCpuKernels<float>())
TILEWRIGHT_CPU_KERNEL(nms_kernels_double, NmsCpuKernels<double>())
TILEWRIGHT_CPU_KERNEL(nms_rotated_kernels, NmsCpuKernels<double>())

// Fills out[a][begin, end) with the boxes of rows order[begin, end).
TILEWRIGHT_CPU_KERNEL(nms_load_float,
                      void(const float* rows, const int64_t* order, double threshold, int64_t begin,
                           int64_t end, float* const* out))
TILEWRIGHT_CPU_KERNEL(nms_load_double,
                      void(const double* rows, const int64_t* order, double threshold,
                           int64_t begin, int64_t end, double* const* out))
// The same for rotated boxes of five columns, and their shapes.
TILEWRIGHT_CPU_KERNEL(nms_load_rotated, void(const double* rows, const int64_t* order,
                                             double threshold, int64_t begin, int64_t end,
                                             double* const* out, RotatedBox<double>* shapes))

}  // namespace tilewright
