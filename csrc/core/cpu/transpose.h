// Between feature planes and tiles whose innermost dimension is a run of channels, by squares of
// SIMD registers that are transposed in registers. Tiles hold sums in the accumulation type.
#pragma once
#include <utility>

#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// kLanes registers of kLanes values, as the compiler's own vectors: it picks the shuffles.
template <class T>
class Square {
  using Acc = Accumulate<T>;
  static constexpr int kSide = int(kLanes<T>);
  typedef Acc Row __attribute__((vector_size(sizeof(Acc) * kSide)));

 public:
  // The first `count` lanes from memory; the others become 0.
  template <class From>
  void load(int row, const From* from, int64_t count = kSide) {
    load_lanes(from, count).store(reinterpret_cast<Acc*>(&rows_[row]));
  }
  void clear(int row) { rows_[row] = Row{}; }
  template <class To>
  void store(int row, To* to, int64_t count = kSide) const {
    store_lanes<To>(Vec<T>::loadu(reinterpret_cast<const Acc*>(&rows_[row])), to, count);
  }

  // The sum of the rows, in order.
  Vec<T> add_up() const {
    Row sum = rows_[0];
    for (int i = 1; i < kSide; ++i) sum += rows_[i];
    return Vec<T>::loadu(reinterpret_cast<const Acc*>(&sum));
  }

  // Eklundh's way: quarters of ever smaller squares change places.
  void transpose() { swap_quarters<kSide / 2>(std::make_index_sequence<size_t(kSide)>()); }

 private:
  template <int kHalf, size_t... kLane>
  void swap_quarters(std::index_sequence<kLane...> lanes) {
    for (int i = 0; i < kSide; ++i) {
      if (i & kHalf) continue;
      const Row a = rows_[i], b = rows_[i + kHalf];
      rows_[i] = __builtin_shufflevector(
          a, b, (kLane & kHalf ? int(kLane) - kHalf + kSide : int(kLane))...);
      rows_[i + kHalf] = __builtin_shufflevector(
          a, b, (kLane & kHalf ? int(kLane) + kSide : int(kLane) + kHalf)...);
    }
    if constexpr (kHalf > 1) swap_quarters<kHalf / 2>(lanes);
  }

  Row rows_[kSide];
};

// Calls square(first, count) until [0, size) is covered. The last square overlaps the one before it
// rather than be cut, where there is room.
template <class Visit>
inline void for_squares(int64_t size, int64_t side, Visit square) {
  for (int64_t i = 0; i < size; i += side) {
    const int64_t first = size < side ? 0 : min_of(i, size - side);
    square(first, min_of(side, size));
  }
}

// tile[i * tile_stride + c] = planes[c * plane_stride + i] for i < size, c < channels; the lanes
// that fill up the last register of channels become 0.
template <class T>
inline void planes_to_tile(const T* planes, int64_t plane_stride, int64_t size, int64_t channels,
                           Accumulate<T>* tile, int64_t tile_stride) {
  constexpr int64_t kSide = kLanes<T>;
  for_squares(size, kSide, [&](int64_t i, int64_t count) {
    for (int64_t c = 0; c < channels; c += kSide) {
      const T* from = planes + c * plane_stride + i;
      Accumulate<T>* to = tile + i * tile_stride + c;
      Square<T> square;
      if (count == kSide && channels - c >= kSide) {
        for (int r = 0; r < kSide; ++r) square.load(r, from + r * plane_stride);
        square.transpose();
        for (int r = 0; r < kSide; ++r) square.store(r, to + r * tile_stride);
      } else {
        for (int r = 0; r < kSide; ++r) {
          if (r < channels - c) {
            square.load(r, from + r * plane_stride, count);
          } else {
            square.clear(r);
          }
        }
        square.transpose();
        for (int r = 0; r < count; ++r) square.store(r, to + r * tile_stride);
      }
    }
  });
}

// planes[c * plane_stride + i] = tile[i * tile_stride + c] for i < size, c < channels.
template <class T>
inline void tile_to_planes(const Accumulate<T>* tile, int64_t tile_stride, int64_t size,
                           int64_t channels, T* planes, int64_t plane_stride) {
  constexpr int64_t kSide = kLanes<T>;
  for_squares(size, kSide, [&](int64_t i, int64_t count) {
    for (int64_t c = 0; c < channels; c += kSide) {
      const Accumulate<T>* from = tile + i * tile_stride + c;
      T* to = planes + c * plane_stride + i;
      const int64_t rows = min_of(kSide, channels - c);
      Square<T> square;
      if (count == kSide && rows == kSide) {
        for (int r = 0; r < kSide; ++r) square.load(r, from + r * tile_stride);
        square.transpose();
        for (int r = 0; r < kSide; ++r) square.store(r, to + r * plane_stride);
      } else {
        for (int r = 0; r < kSide; ++r) {
          if (r < count) {
            square.load(r, from + r * tile_stride);
          } else {
            square.clear(r);
          }
        }
        square.transpose();
        for (int r = 0; r < rows; ++r) square.store(r, to + r * plane_stride, count);
      }
    }
  });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
