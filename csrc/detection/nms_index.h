// The index over kept boxes: which buckets can hold a box that reaches the threshold with a given
// one. Everything here may only err by looking into too many: the overlap itself is always
// computed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "tilewright/core/math.h"
#include "tilewright/detection/nms_cpu.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

namespace nms_index {

inline uint64_t to_bits(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline double from_bits(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

constexpr int kMantissaBits = 52;
constexpr int64_t kMostCells = 48;  // per axis; more are not worth looking up

// One over the side of the cells of a size class: a power of 2, at most half of the class's bound.
inline double cells_per_pixel(uint64_t size_class, int class_shift, int cells_per_side) {
  const int64_t exponent = int64_t((size_class + 1) << class_shift >> kMantissaBits);
  const int64_t inverse = 2046 - (exponent - 1) + cells_per_side;
  return from_bits(uint64_t(min_of<int64_t>(max_of<int64_t>(inverse, 1), 2046)) << kMantissaBits);
}

// Monotonous, so a cell between those of two coordinates holds what lies between them.
inline int64_t cell_of(double coordinate, double per_pixel) {
  constexpr double kFar = 4e18;
  return int64_t(min_of(max_of(std::floor(coordinate * per_pixel), -kFar), kFar));
}

// Part of a bucket's number; those of the axes are added. Odd constants with random bits.
inline uint32_t axis_hash(int axis, uint64_t size_class, int64_t cell) {
  return axis == 0 ? uint32_t(size_class) * 0x85ebca6bu + uint32_t(cell) * 0x9e3779b1u
                   : uint32_t(size_class) * 0xc2b2ae35u + uint32_t(cell) * 0x27d4eb2fu;
}

template <class T>
int32_t bucket_of(const NmsIndex<T>& index, T x1, T y1, T x2, T y2) {
  const T starts[2] = {x1, y1}, sides[2] = {x2 - x1, y2 - y1};
  uint32_t hash = 0;
  for (int axis = 0; axis < 2; ++axis) {
    const uint64_t c = to_bits(double(sides[axis])) >> index.class_shift;
    const double per_pixel = cells_per_pixel(c, index.class_shift, index.cells_per_side);
    hash += axis_hash(axis, c, cell_of(double(starts[axis]), per_pixel));
  }
  return int32_t(hash >> (32 - index.bits));
}

// The cells along one axis where boxes lie that can reach the threshold with [start, start + side].
struct Cells {
  uint32_t hashes[kMostCells];
  int64_t count = 0;
};

// False if there are too many.
template <class T>
bool find_cells(const NmsIndex<T>& index, int axis, double start, double side, Cells& cells) {
  const double p = index.overlap, q = index.divisor;
  const uint64_t own = to_bits(side) >> index.class_shift;
  const uint64_t first = to_bits(side * p) >> index.class_shift;
  const uint64_t last = to_bits(side / p) >> index.class_shift;
  const double rounding = std::abs(start) * 0x1p-50;
  // Most suppressors are of like size: the own class first.
  for (uint64_t step = 0; step <= last - first; ++step) {
    const uint64_t c = step == 0 ? own : first + step - (first + step <= own ? 1 : 0);
    const double low = from_bits(c << index.class_shift);
    const double high = from_bits((c + 1) << index.class_shift);
    const double before = min_of((1 - p) * high, (high - p * side) / q);
    const double after = min_of((1 - p) * side, (side - p * low) / q);
    const double per_pixel = cells_per_pixel(c, index.class_shift, index.cells_per_side);
    const int64_t from = cell_of(start - before - rounding, per_pixel);
    const int64_t to = cell_of(start + after + rounding, per_pixel);
    if (to - from >= kMostCells - cells.count) return false;
    for (int64_t cell = from; cell <= to; ++cell) {
      cells.hashes[cells.count++] = axis_hash(axis, c, cell);
    }
  }
  return true;
}

}  // namespace nms_index

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
