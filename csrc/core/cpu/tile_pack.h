// Between tensors and the tiles that matrix products read: widened or as they are, transposed, in
// pairs of rows for bfloat16, padded with zeros.
#pragma once
#include <c10/util/BFloat16.h>

#include <cstring>
#if defined(CPU_CAPABILITY_AVX512)
#include <immintrin.h>
#endif

#include "tilewright/core/cpu/transpose.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// The type G of tiles: that of the tensor, or float.
template <class G>
inline constexpr bool kPaired = std::is_same_v<G, c10::BFloat16>;
// bfloat16 operands are for the instruction set whose brgemm takes them.
#if defined(CPU_CAPABILITY_AVX512)
inline constexpr bool kHasPairs = true;
#else
inline constexpr bool kHasPairs = false;
#endif
// bfloat16 products take K in pairs.
template <class G>
inline int64_t padded_depth(int64_t depth) {
  return kPaired<G> ? (depth + 1) / 2 * 2 : depth;
}

template <class T, class G>
inline void convert_row(const T* from, G* to, int64_t count) {
  if constexpr (std::is_same_v<T, G>) {
    std::memcpy(static_cast<void*>(to), static_cast<const void*>(from), size_t(count) * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const int64_t lanes = min_of(kLanes<T>, count - i);
      store_lanes<G>(load_lanes(from + i, lanes), to + i, lanes);
    }
  }
}

// to (rows, width) with `stride`: row r of the tensor where row_of(r) is not null, else zeros; what
// lies beyond `size` values becomes zero.
template <class T, class G, class RowOf>
inline void pack_rows(RowOf row_of, int64_t rows, int64_t size, G* to, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = row_of(r);
    G* row = to + r * stride;
    const int64_t given = from == nullptr ? 0 : size;
    if (given > 0) convert_row(from, row, given);
    std::memset(static_cast<void*>(row + given), 0, size_t(stride - given) * sizeof(G));
  }
}

// to (size, rows) with `stride` from a tile (rows, size).
template <class G>
inline void transpose_tile(const G* tile, int64_t tile_stride, int64_t rows, int64_t size, G* to,
                           int64_t stride) {
  constexpr int64_t kSide = kLanes<G>;
  for_squares(size, kSide, [&](int64_t i, int64_t count) {
    for_squares(rows, kSide, [&](int64_t r, int64_t lanes) {
      Square<G> square;
      for (int k = 0; k < kSide; ++k) {
        if (k < lanes) {
          square.load(k, tile + (r + k) * tile_stride + i, count);
        } else {
          square.clear(k);
        }
      }
      square.transpose();
      for (int k = 0; k < count; ++k) square.store(k, to + (i + k) * stride + r, lanes);
    });
  });
}

// The second operand of A tile^T, from a tile (rows, depth): to (depth, rows), in pairs along depth
// for bfloat16, where a pair travels as one 32-bit value.
template <class G>
inline void pack_transposed_operand(const G* tile, int64_t tile_stride, int64_t rows, int64_t depth,
                                    G* to, int64_t stride) {
  if constexpr (kPaired<G>) {
    transpose_tile(reinterpret_cast<const float*>(tile), tile_stride / 2, rows, depth / 2,
                   reinterpret_cast<float*>(to), stride);
  } else {
    transpose_tile(tile, tile_stride, rows, depth, to, stride);
  }
}

#if defined(CPU_CAPABILITY_AVX512)
// Both rounded to nearest even, `low` in the low half. Written as assembly because the build's
// instruction set has no such thing: callers asked brgemm_serves_bfloat16() before.
inline __m512i round_to_bfloat16(__m512 low, __m512 high) {
  __m512i both;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(low), "v"(high));
  return both;
}

// 32 values, next to each other.
inline void store_bfloat16(const Vec<float>& low, const Vec<float>& high, c10::BFloat16* to) {
  _mm512_storeu_si512(to, round_to_bfloat16(low, high));
}

// 16 values of two rows, as pairs.
inline void store_pairs(const Vec<float>& even, const Vec<float>& odd, c10::BFloat16* to) {
  // Element i of the even row is value i, of the odd one value 16 + i.
  const __m512i turn = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                        8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(turn, round_to_bfloat16(even, odd)));
}
#endif

// Two rows of bfloat16 as one of pairs.
inline void pair_rows(const c10::BFloat16* even, const c10::BFloat16* odd, int64_t count,
                      c10::BFloat16* to) {
  const auto* low = reinterpret_cast<const uint16_t*>(even);
  const auto* high = reinterpret_cast<const uint16_t*>(odd);
  auto* pairs = reinterpret_cast<uint32_t*>(to);
  for (int64_t i = 0; i < count; ++i) pairs[i] = uint32_t(low[i]) | uint32_t(high[i]) << 16;
}

// Whether a row holds a value that is not finite: such values times 0 are NaN.
template <class G>
inline bool has_non_finite(const G* row, int64_t count) {
  Vec<G> sum(Accumulate<G>(0));
  for (int64_t i = 0; i < count; i += kLanes<G>) {
    sum = at::vec::fmadd(load_lanes(row + i, min_of(kLanes<G>, count - i)),
                         Vec<G>(Accumulate<G>(0)), sum);
  }
  return any_lane(sum != sum);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
