// The greatest pixel of a bin, for a register of channels at once: the inner loop of RoIPool on the
// CPU. Pixels hold their channels side by side.
#pragma once
#include <cstring>

#include "tilewright/core/cpu/vec.h"
#include "tilewright/detection/roi_pool_math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A rectangle of pixels: columns [x, x + columns) of rows[0, count); columns lie `stride` apart.
template <class S>
struct PoolWindow {
  const S* const* rows;
  int64_t count, x, columns, stride;
  int64_t width;  // of the map, for the pixel's index
};

// kVectors registers of channels. S is the type of the pixels, sums are not needed here but the
// comparisons are in Accumulate<S>.
template <int kVectors, class S>
class PoolScan {
  using Acc = Accumulate<S>;
  using Index = std::conditional_t<sizeof(Acc) == 8, int64_t, int32_t>;
  static constexpr int64_t kLane = kLanes<S>;
  // Compilers turn comparisons and selections of these into mask registers; at::vec's do not.
  typedef Acc Values __attribute__((vector_size(kLane * sizeof(Acc))));
  typedef Index Indices __attribute__((vector_size(kLane * sizeof(Acc))));

 public:
  static constexpr int64_t kChannels = kVectors * kLane;

  // `channels` of kChannels exist: the first so many values and indices are meant. The window must
  // have a pixel.
  PoolScan(const PoolWindow<S>& window, int64_t channels) {
    if (channels < kChannels) {
      scalar_lanes(window, 0, channels);
      return;
    }
    // One comparison waits for the one before, so a single register scans two halves side by side.
    constexpr int kGroups = kVectors == 1 ? 2 : 1;
    Best best[kGroups][kVectors];
    for (auto& group : best) {
      for (Best& b : group) {
        b.value = Values{} - std::numeric_limits<Acc>::infinity();
        b.sum = Values{};
        b.at = Indices{} - 1;
      }
    }
    const int64_t half = window.count / kGroups, rest = window.count - kGroups * half;
    walk<kGroups>(window, 0, half, half + rest, best);
    if (rest) walk<1>(window, half, rest, 0, best);
    for (int v = 0; v < kVectors; ++v) {
      Best b = best[0][v];
      if constexpr (kGroups == 2) {
        const Best& later = best[1][v];
        const Indices taken = later.value > b.value;
        b.value = taken ? later.value : b.value;
        b.at = taken ? later.at + Index((half + rest) * window.width) : b.at;
        b.sum += later.sum;
      }
      std::memcpy(values + v * kLane, &b.value, sizeof b.value);
      for (int64_t i = 0; i < kLane; ++i) indices[v * kLane + i] = int32_t(b.at[i]);
      // A NaN anywhere makes the sum NaN (as can infinities), and -infinity is greater than none.
      const Indices odd = (b.sum != b.sum) | (b.at < 0);
      Vec<S> mask;
      std::memcpy(static_cast<void*>(&mask), &odd, sizeof odd);
      if (any_lane(mask)) scalar_lanes(window, v * kLane, kLane);
    }
  }

  // The greatest pixels, and their y * width + x, counted from the window's first row and column 0.
  Acc values[kChannels];
  int32_t indices[kChannels];

 private:
  struct Best {
    Values value, sum;
    Indices at;  // counted from the group's first pixel
  };

  static void load(const S* from, Values& lanes) {
    if constexpr (std::is_same_v<S, Acc>) {
      std::memcpy(&lanes, from, sizeof lanes);
    } else {
      const Vec<S> loaded = load_lanes(from);
      std::memcpy(&lanes, static_cast<const void*>(&loaded), sizeof lanes);
    }
  }

  // Rows [first, first + count) and, for a second group, those `apart` further down.
  template <int kGroups>
  __attribute__((always_inline)) static void walk(const PoolWindow<S>& window, int64_t first,
                                                  int64_t count, int64_t apart,
                                                  Best (*best)[kVectors]) {
    for (int64_t i = first; i < first + count; ++i) {
      Indices at = Indices{} + Index(i * window.width + window.x);
      const S* from[kGroups];
      for (int g = 0; g < kGroups; ++g) {
        from[g] = window.rows[i + g * apart] + window.x * window.stride;
      }
      for (int64_t x = 0; x < window.columns; ++x, at += 1) {
        for (int g = 0; g < kGroups; ++g, from[g - 1] += window.stride) {
          for (int v = 0; v < kVectors; ++v) {
            Best& b = best[g][v];
            Values value;
            load(from[g] + v * kLane, value);
            const Indices taken = value > b.value;
            b.value = taken ? value : b.value;
            b.at = taken ? at : b.at;
            b.sum += value;
          }
        }
      }
    }
  }

  void scalar_lanes(const PoolWindow<S>& window, int64_t first, int64_t count) {
    for (int64_t c = first; c < first + count; ++c) {
      indices[c] = -1;
      for (int64_t i = 0; i < window.count; ++i) {
        for (int64_t x = window.x; x < window.x + window.columns; ++x) {
          const Acc value = Acc(window.rows[i][x * window.stride + c]);
          if (indices[c] >= 0 && !pool_replaces(value, values[c])) continue;
          values[c] = value;
          indices[c] = int32_t(i * window.width + x);
        }
      }
    }
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
