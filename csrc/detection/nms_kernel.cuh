// NMS's device code: overlaps as a bit matrix in 64 x 64 tiles, then one block that walks its rows.
// The matrix is made a few rows at a time, so its memory is bounded.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"
#include "tilewright/detection/nms_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kNmsTile = 64;  // boxes per word of the matrix
constexpr int kNmsReduceThreads = 512;

// An upright box: its coordinates as they are, and its area.
template <class T>
struct UprightShape {
  using Coordinate = T;
  NmsBox<T> box;

  static TILEWRIGHT_DEVICE UprightShape load(const T* row) {
    const Pack<T, 2> low = load_pack<2>(row), high = load_pack<2>(row + 2);
    return {{low[0], low[1], high[0], high[1], box_area_of(low[0], low[1], high[0], high[1])}};
  }
  TILEWRIGHT_DEVICE bool exceeds(const UprightShape& other, T threshold) const {
    const T intersection = intersection_of(box, other.box);
    return intersection > T(0) && iou_of(box, other.box, intersection) > threshold;
  }
};

// Shape is UprightShape<T> or RotatedShape (nms_rotated_kernel.cuh).
template <class Shape>
struct NmsParams {
  using T = typename Shape::Coordinate;
  const T* boxes;  // (count, Shape's columns), by descending score within a class
  int64_t columns;
  const int64_t* classes;  // (count,), or null: one class
  int64_t count, words;    // words = ceil(count / 64)
  T threshold;
  // Rows [first_row, first_row + rows) of the matrix are worked on; first_row is a multiple of 64.
  int64_t first_row, rows;
  uint64_t* mask;     // (rows, words): bit j of word w: the row's box suppresses box 64 w + j
  uint64_t* removed;  // (words,): boxes that are suppressed so far
  bool* keep;         // (count,)
};

template <class Shape>
struct NmsTileParts {
  Shape* shapes;
  int64_t* classes;
  TILEWRIGHT_HD explicit NmsTileParts(SharedMemory& shared)
      : shapes(shared.take<Shape>(kNmsTile)), classes(shared.take<int64_t>(kNmsTile)) {}
};

// Block (x, y): boxes of column tile x against those of the chunk's row tile y; a thread per row.
template <class Shape>
__global__ void nms_mask_kernel(NmsParams<Shape> p) {
  const int64_t row_tile = p.first_row / kNmsTile + blockIdx.y;
  const int64_t column_tile = p.first_row / kNmsTile + blockIdx.x;
  if (column_tile < row_tile) return;  // the whole block
  SharedMemory shared;
  const NmsTileParts<Shape> parts(shared);
  const int64_t first_column = column_tile * kNmsTile;
  const int columns = int(min_of<int64_t>(kNmsTile, p.count - first_column));
  if (threadIdx.x < columns) {
    const int64_t column = first_column + threadIdx.x;
    parts.shapes[threadIdx.x] = Shape::load(p.boxes + column * p.columns);
    parts.classes[threadIdx.x] = p.classes ? p.classes[column] : 0;
  }
  __syncthreads();
  const int64_t row = row_tile * kNmsTile + threadIdx.x;
  if (row >= p.count) return;
  const Shape shape = Shape::load(p.boxes + row * p.columns);
  const int64_t group = p.classes ? p.classes[row] : 0;
  uint64_t bits = 0;
  for (int j = 0; j < columns; ++j) {
    if (first_column + j <= row || parts.classes[j] != group) continue;
    if (shape.exceeds(parts.shapes[j], p.threshold)) bits |= uint64_t(1) << j;
  }
  p.mask[(row - p.first_row) * p.words + column_tile] = bits;
}

struct NmsReduceParts {
  uint64_t* kept;  // one word: which boxes of the current tile are kept
  TILEWRIGHT_HD explicit NmsReduceParts(SharedMemory& shared) : kept(shared.take<uint64_t>(1)) {}
};

// One block. Settles the chunk's rows tile by tile: the first thread within the tile, all threads
// for the tiles to its right.
template <class Shape>
__global__ void nms_reduce_kernel(NmsParams<Shape> p) {
  SharedMemory shared;
  const NmsReduceParts parts(shared);
  for (int64_t first = 0; first < p.rows; first += kNmsTile) {
    const int64_t tile = (p.first_row + first) / kNmsTile;
    const int count = int(min_of<int64_t>(kNmsTile, p.rows - first));
    if (threadIdx.x == 0) {
      uint64_t removed = p.removed[tile], kept = 0;
      for (int i = 0; i < count; ++i) {
        if (removed >> i & 1) continue;
        kept |= uint64_t(1) << i;
        removed |= p.mask[(first + i) * p.words + tile];
      }
      *parts.kept = kept;
    }
    __syncthreads();
    const uint64_t kept = *parts.kept;
    if (threadIdx.x < count) p.keep[p.first_row + first + threadIdx.x] = kept >> threadIdx.x & 1;
    for (int64_t w = tile + 1 + threadIdx.x; w < p.words; w += blockDim.x) {
      uint64_t removed = p.removed[w];
      for (uint64_t rest = kept; rest != 0; rest &= rest - 1) {
        removed |= p.mask[(first + __ffsll(rest) - 1) * p.words + w];
      }
      p.removed[w] = removed;
    }
    __syncthreads();
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
