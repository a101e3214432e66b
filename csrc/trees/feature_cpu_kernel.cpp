// Values to bins: how many cuts are at most a value.
#include <cmath>
#include <limits>

#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#include <immintrin.h>
#endif

#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/feature_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// Rows whose values of one feature are read before those of the next: their lines stay in cache.
constexpr int64_t kBlockRows = 256;
// A cut in so many stands in the index, so that two registers' comparisons find the place.
constexpr int kGroup = 16;
constexpr int64_t kIndexed = kGroup * kGroup;

// How many of 16 ascending numbers are at most the value.
inline int count_at_most(const float* sixteen, float value) {
#if defined(CPU_CAPABILITY_AVX512)
  const __mmask16 mask =
      _mm512_cmp_ps_mask(_mm512_loadu_ps(sixteen), _mm512_set1_ps(value), _CMP_LE_OQ);
  return __builtin_popcount(mask);
#elif defined(CPU_CAPABILITY_AVX2)
  const __m256 x = _mm256_set1_ps(value);
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(sixteen), x, _CMP_LE_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(sixteen + 8), x, _CMP_LE_OQ));
  return __builtin_popcount(low | high << 8);
#else
  int count = 0;
  for (int i = 0; i < kGroup; ++i) count += sixteen[i] <= value;
  return count;
#endif
}

// Cuts of one feature, filled up with NaN, which no value reaches, and an index of their groups.
struct CutIndex {
  float cuts[kIndexed], last[kGroup];

  void set(const float* from, int64_t count) {
    for (int64_t i = 0; i < kIndexed; ++i) {
      cuts[i] = i < count ? from[i] : std::numeric_limits<float>::quiet_NaN();
    }
    for (int g = 0; g < kGroup; ++g) last[g] = cuts[g * kGroup + kGroup - 1];
  }
  int find(float value) const {
    const int group = count_at_most(last, value);
    return group * kGroup + count_at_most(cuts + group * kGroup, value);
  }
};

int64_t find_among(const float* cuts, int64_t count, float value) {
  int64_t low = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    const bool above = cuts[low + half] <= value;
    low = above ? low + half + 1 : low;
    count = above ? count - half - 1 : half;
  }
  return low;
}

template <class T>
void quantize(const QuantizeParams& p, int64_t begin, int64_t end) {
  const T* table = static_cast<const T*>(p.table.data);
  const bool narrow = p.max_bin <= 255;
  Buffer<CutIndex> index;
  if (narrow) {
    index.resize(p.features);
    for (int64_t f = 0; f < p.features; ++f) index[f].set(p.cuts + f * p.max_bin, p.count[f]);
  }
  for (int64_t block = begin; block < end; block += kBlockRows) {
    const int64_t last = min_of(block + kBlockRows, end);
    for (int64_t f = 0; f < p.features; ++f) {
      const T* column = table + f * p.table.column;
      if (narrow) {
        auto* codes = static_cast<uint8_t*>(p.codes) + f;
        const CutIndex& cuts = index[f];
        for (int64_t r = block; r < last; ++r) {
          const float value = float(column[r * p.table.row]);
          codes[r * p.features] = uint8_t(std::isnan(value) ? 255 : cuts.find(value));
        }
      } else {
        auto* codes = static_cast<int16_t*>(p.codes) + f;
        for (int64_t r = block; r < last; ++r) {
          const float value = float(column[r * p.table.row]);
          codes[r * p.features] =
              int16_t(std::isnan(value) ? p.max_bin
                                        : find_among(p.cuts + f * p.max_bin, p.count[f], value));
        }
      }
    }
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(feature_sample)(const FeatureTable& table, int64_t first, int64_t last,
                                           int64_t rows, int64_t sampled, float* values) {
  dispatch_floating("feature_cuts", table.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* data = static_cast<const T*>(table.data) + first * table.column;
    for (int64_t i = 0; i < sampled; ++i) {
      const T* row = data + sampled_row(i, rows, sampled) * table.row;
      for (int64_t f = 0; f < last - first; ++f) {
        values[f * sampled + i] = float(row[f * table.column]);
      }
    }
  });
}

void TILEWRIGHT_ON_MACHINE(quantize_rows)(const QuantizeParams& params, int64_t begin,
                                          int64_t end) {
  dispatch_floating("quantize_features", params.table.dtype,
                    [&](auto tag) { quantize<typename decltype(tag)::type>(params, begin, end); });
}

}  // namespace tilewright
