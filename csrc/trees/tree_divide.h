// Rows of a node to its children: which go left, and then all to their places, without a branch
// that half of the rows would mispredict.
#pragma once
#if defined(CPU_CAPABILITY_AVX512)
#include <immintrin.h>
#endif

#include "tilewright/trees/tree_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// Rows [i, count), of which `lefts` of those before went left.
inline void divide_rest(const uint8_t* flags, TreeRows rows, const int64_t* words, int64_t i,
                        int64_t lefts, int64_t count, TreeRowsOut left, TreeRowsOut right) {
  // Both addresses are at hand, and a mask takes one: compilers would make a choice a branch.
  const auto choose = [](auto* on, auto* off, uint64_t mask) {
    const auto a = reinterpret_cast<uint64_t>(on), b = reinterpret_cast<uint64_t>(off);
    return reinterpret_cast<decltype(on)>(b ^ ((a ^ b) & mask));
  };
  for (; i < count; ++i) {
    const uint64_t mask = -uint64_t(flags[i]);
    const int64_t row = rows.list == nullptr ? rows.first + i : rows.list[i];
    *choose(left.rows + lefts, right.rows + (i - lefts), mask) = int32_t(row);
    if (words != nullptr) *choose(left.words + lefts, right.words + (i - lefts), mask) = words[i];
    lefts += flags[i];
  }
}

#if defined(CPU_CAPABILITY_AVX512)

// Sets or clears flags of sixteen rows at a time; returns how many rows that were, and adds to
// `left` how many of them go left. Codes may be read up to three bytes beyond their end.
template <class Code>
int64_t flag_listed(const Code* column, const int32_t* rows, int64_t count, Code last,
                    bool default_left, Code missing, uint8_t* flags, int64_t& left) {
  const __m512i most = _mm512_set1_epi32(last), none = _mm512_set1_epi32(missing);
  const __m512i bits = _mm512_set1_epi32((1 << (8 * sizeof(Code))) - 1);
  const __mmask16 missing_left = default_left ? 0xffff : 0;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m512i ids = _mm512_loadu_si512(rows + i);
    const __m512i code = _mm512_and_si512(_mm512_i32gather_epi32(ids, column, sizeof(Code)), bits);
    const __mmask16 goes_left = _mm512_cmple_epu32_mask(code, most) |
                                _mm512_mask_cmpeq_epi32_mask(missing_left, code, none);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(flags + i), _mm_maskz_set1_epi8(goes_left, 1));
    left += __builtin_popcount(goes_left);
  }
  return i;
}

// Those of sixteen rows that a mask names, one after the other.
inline void put_rows(__m512i rows, __mmask16 which, int32_t* out) {
  const auto first = __mmask16((1u << __builtin_popcount(which)) - 1);
  _mm512_mask_storeu_epi32(out, first, _mm512_maskz_compress_epi32(which, rows));
}
inline void put_words(const int64_t* words, __mmask16 which, int64_t* out) {
  for (int half = 0; half < 2; ++half) {
    const auto mask = __mmask8(which >> (8 * half));
    const int count = __builtin_popcount(mask);
    const __m512i eight = _mm512_loadu_si512(words + 8 * half);
    _mm512_mask_storeu_epi64(out, __mmask8((1u << count) - 1),
                             _mm512_maskz_compress_epi64(mask, eight));
    out += count;
  }
}

inline void divide_rows(const uint8_t* flags, TreeRows rows, const int64_t* words, int64_t count,
                        TreeRowsOut left, TreeRowsOut right) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int64_t i = 0, lefts = 0;
  for (; i + 16 <= count; i += 16) {
    const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(flags + i));
    const __mmask16 goes_left = _mm_test_epi8_mask(sixteen, sixteen);
    const auto goes_right = __mmask16(~goes_left);
    const __m512i ids = rows.list != nullptr
                            ? _mm512_loadu_si512(rows.list + i)
                            : _mm512_add_epi32(_mm512_set1_epi32(int32_t(rows.first + i)), lane);
    put_rows(ids, goes_left, left.rows + lefts);
    put_rows(ids, goes_right, right.rows + (i - lefts));
    if (words != nullptr) {
      put_words(words + i, goes_left, left.words + lefts);
      put_words(words + i, goes_right, right.words + (i - lefts));
    }
    lefts += __builtin_popcount(goes_left);
  }
  divide_rest(flags, rows, words, i, lefts, count, left, right);
}

#else

template <class Code>
int64_t flag_listed(const Code*, const int32_t*, int64_t, Code, bool, Code, uint8_t*, int64_t&) {
  return 0;
}

inline void divide_rows(const uint8_t* flags, TreeRows rows, const int64_t* words, int64_t count,
                        TreeRowsOut left, TreeRowsOut right) {
  divide_rest(flags, rows, words, 0, 0, count, left, right);
}

#endif

// `table` is that of a split of categories, or null.
template <class Code, bool kDefaultLeft, class Row>
int64_t flag_left(const TreeCodes& codes, const TreeSplit& split, const uint8_t* table,
                  const int32_t* list, Row row_at, int64_t count, uint8_t* flags) {
  const Code* column =
      static_cast<const Code*>(codes.columns) + int64_t(split.feature) * codes.count;
  int64_t left = 0;
  if (table != nullptr) {
    for (int64_t i = 0; i < count; ++i) left += flags[i] = table[column[row_at(i)]];
    return left;
  }
  const auto missing = Code(codes.codes - 1), last = Code(split.code);
  int64_t i = 0;
  if (list != nullptr) {
    i = flag_listed(column, list, count, last, kDefaultLeft, missing, flags, left);
  }
  for (; i < count; ++i) {
    const Code value = column[row_at(i)];
    flags[i] = (value <= last) | (kDefaultLeft & (value == missing));
    left += flags[i];
  }
  return left;
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
