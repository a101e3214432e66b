// The loops of exact split finding: sorted entries to a node's children, and the search in them.
#include <cmath>
#include <cstring>

#if defined(CPU_CAPABILITY_AVX512)
#include <immintrin.h>
#endif

#include "tilewright/trees/exact_scan.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

#if defined(CPU_CAPABILITY_AVX512)

// Sixteen entries at a time; returns how many entries that were, and sets how many went left.
int64_t divide_sixteens(const int32_t* places, const float* values, int64_t count,
                        const int32_t* map, int32_t middle, SortedOut left, SortedOut right,
                        int64_t& lefts) {
  const __m512i bound = _mm512_set1_epi32(middle);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m512i place = _mm512_i32gather_epi32(_mm512_loadu_si512(places + i), map, 4);
    const __m512 value = _mm512_loadu_ps(values + i);
    const __mmask16 low = _mm512_cmplt_epi32_mask(place, bound);
    const auto high = __mmask16(~low);
    const int few = __builtin_popcount(low);
    const auto first = __mmask16((1u << few) - 1), rest = __mmask16((1u << (16 - few)) - 1);
    const int64_t rights = i - lefts;
    _mm512_mask_storeu_epi32(left.places + lefts, first, _mm512_maskz_compress_epi32(low, place));
    _mm512_mask_storeu_ps(left.values + lefts, first, _mm512_maskz_compress_ps(low, value));
    _mm512_mask_storeu_epi32(right.places + rights, rest, _mm512_maskz_compress_epi32(high, place));
    _mm512_mask_storeu_ps(right.values + rights, rest, _mm512_maskz_compress_ps(high, value));
    lefts += few;
  }
  return i;
}

#else

int64_t divide_sixteens(const int32_t*, const float*, int64_t, const int32_t*, int32_t, SortedOut,
                        SortedOut, int64_t&) {
  return 0;
}

#endif

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

int64_t TILEWRIGHT_ON_MACHINE(exact_present)(const float* values, int64_t count) {
  return present_values(values, count);
}

int64_t TILEWRIGHT_ON_MACHINE(exact_divide)(const SortedColumns& columns, int64_t feature,
                                            int64_t begin, int64_t count, const int32_t* map,
                                            int32_t middle, SortedOut left, SortedOut right) {
  const int32_t* places = columns.places + feature * columns.stride + begin;
  const float* values = columns.values + feature * columns.stride + begin;
  int64_t lefts = 0;
  int64_t i = divide_sixteens(places, values, count, map, middle, left, right, lefts);
  // Written to both lists, so that there is no branch that half of the entries would mispredict.
  for (; i < count; ++i) {
    const int32_t place = map[places[i]];
    const float value = values[i];
    left.places[lefts] = place;
    left.values[lefts] = value;
    right.places[i - lefts] = place;
    right.values[i - lefts] = value;
    lefts += place < middle;
  }
  return lefts;
}

TreeSplit TILEWRIGHT_ON_MACHINE(exact_best_split)(const TreeSplitParams& params,
                                                  const SortedColumns& columns,
                                                  const TreeCount* pairs, int64_t begin,
                                                  int64_t count, int64_t first, int64_t last) {
  ExactScan scan(params, node_gain(params));
  for (int64_t i = first; i < last; ++i) {
    const int32_t feature = params.features[i];
    const int64_t at = feature * columns.stride + begin;
    scan.scan(feature, columns.places + at, columns.values + at, pairs, count);
  }
  return scan.best();
}

}  // namespace tilewright
