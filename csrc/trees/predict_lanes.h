// One tree whose levels are full, for rows side by side: how a step finds the next nodes.
#pragma once
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#include <immintrin.h>
#endif

#include "tilewright/trees/predict_cpu.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// The step itself, for one row: whether it goes to the left child.
inline bool goes_left(float value, float threshold, uint32_t place) {
  return (value < threshold) | ((value != value) & ((place & kMissingLeft) != 0));
}

#if defined(CPU_CAPABILITY_AVX512)

// The upper levels' nodes stand in registers, where a step looks up all lanes' at once; those of
// level 6 and below are gathered.
class FullTree {
 public:
  FullTree(const float* thresholds, const uint32_t* places, int depth)
      : thresholds_(thresholds), places_(places), depth_(depth) {
    for (int i = 0; i < 4 && 16 * i < 1 << depth; ++i) {
      threshold_[i] = _mm512_loadu_ps(thresholds + 16 * i);
      place_[i] = _mm512_loadu_si512(places + 16 * i);
    }
  }
  // The places among the last level that kGroups * kTreeLanes rows come to. Groups follow each
  // other after `stride` floats.
  template <int kGroups>
  void walk(const float* x, int64_t stride, int32_t* leaves) const {
    const __m512i one = _mm512_set1_epi32(1);
    __m512i at[kGroups];
    for (auto& node : at) node = one;
    for (int level = 0; level < depth_; ++level) {
      for (int g = 0; g < kGroups; ++g) {
        __m512 threshold;
        __m512i place;
        look_up(at[g], level, threshold, place);
        const __m512i offset = _mm512_add_epi32(
            _mm512_and_si512(place, _mm512_set1_epi32(int32_t(~kMissingLeft))), lane());
        const __m512 value = _mm512_i32gather_ps(offset, x + g * stride, 4);
        const __mmask16 missing_left =
            _mm512_mask_cmp_ps_mask(_mm512_movepi32_mask(place), value, value, _CMP_UNORD_Q);
        const __mmask16 right =
            _kandn_mask16(missing_left, _mm512_cmp_ps_mask(value, threshold, _CMP_NLT_UQ));
        const __m512i child = _mm512_add_epi32(at[g], at[g]);
        at[g] = _mm512_mask_or_epi32(child, right, child, one);
      }
    }
    const __m512i first = _mm512_set1_epi32(1 << depth_);
    for (int g = 0; g < kGroups; ++g) {
      _mm512_storeu_si512(leaves + g * kTreeLanes, _mm512_sub_epi32(at[g], first));
    }
  }

 private:
  static __m512i lane() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
  void look_up(__m512i at, int level, __m512& threshold, __m512i& place) const {
    if (level <= 3) {
      threshold = _mm512_permutexvar_ps(at, threshold_[0]);
      place = _mm512_permutexvar_epi32(at, place_[0]);
    } else if (level == 4) {
      threshold = _mm512_permutexvar_ps(at, threshold_[1]);
      place = _mm512_permutexvar_epi32(at, place_[1]);
    } else if (level == 5) {
      threshold = _mm512_permutex2var_ps(threshold_[2], at, threshold_[3]);
      place = _mm512_permutex2var_epi32(place_[2], at, place_[3]);
    } else {
      threshold = _mm512_i32gather_ps(at, thresholds_, 4);
      place = _mm512_i32gather_epi32(at, places_, 4);
    }
  }

  const float* thresholds_;
  const uint32_t* places_;
  int depth_;
  __m512 threshold_[4];
  __m512i place_[4];
};

#elif defined(CPU_CAPABILITY_AVX2)

// As above with half the lanes: four levels stand in registers.
class FullTree {
 public:
  FullTree(const float* thresholds, const uint32_t* places, int depth)
      : thresholds_(thresholds), places_(reinterpret_cast<const int*>(places)), depth_(depth) {
    for (int i = 0; i < 2; ++i) {
      threshold_[i] = _mm256_loadu_ps(thresholds + 8 * i);
      place_[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places + 8 * i));
    }
  }
  template <int kGroups>
  void walk(const float* x, int64_t stride, int32_t* leaves) const {
    constexpr int kHalves = 2 * kGroups;
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i at[kHalves];
    for (auto& node : at) node = one;
    for (int level = 0; level < depth_; ++level) {
      for (int h = 0; h < kHalves; ++h) {
        __m256 threshold;
        __m256i place;
        look_up(at[h], level, threshold, place);
        const __m256i offset = _mm256_add_epi32(
            _mm256_and_si256(place, _mm256_set1_epi32(int32_t(~kMissingLeft))), lane);
        const __m256 value = _mm256_i32gather_ps(x + h / 2 * stride + h % 2 * 8, offset, 4);
        const __m256 missing_left =
            _mm256_and_ps(_mm256_cmp_ps(value, value, _CMP_UNORD_Q),
                          _mm256_castsi256_ps(_mm256_srai_epi32(place, 31)));
        const __m256 right =
            _mm256_andnot_ps(missing_left, _mm256_cmp_ps(value, threshold, _CMP_NLT_UQ));
        // A mask is -1 in the lanes that go right.
        at[h] = _mm256_sub_epi32(_mm256_add_epi32(at[h], at[h]), _mm256_castps_si256(right));
      }
    }
    const __m256i first = _mm256_set1_epi32(1 << depth_);
    for (int h = 0; h < kHalves; ++h) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(leaves + 8 * h),
                          _mm256_sub_epi32(at[h], first));
    }
  }

 private:
  void look_up(__m256i at, int level, __m256& threshold, __m256i& place) const {
    if (level <= 3) {
      const int i = level == 3;
      threshold = _mm256_permutevar8x32_ps(threshold_[i], at);
      place = _mm256_permutevar8x32_epi32(place_[i], at);
    } else {
      threshold = _mm256_i32gather_ps(thresholds_, at, 4);
      place = _mm256_i32gather_epi32(places_, at, 4);
    }
  }

  const float* thresholds_;
  const int* places_;
  int depth_;
  __m256 threshold_[2];
  __m256i place_[2];
};

#else

class FullTree {
 public:
  FullTree(const float* thresholds, const uint32_t* places, int depth)
      : thresholds_(thresholds), places_(places), depth_(depth) {}
  template <int kGroups>
  void walk(const float* x, int64_t stride, int32_t* leaves) const {
    for (int g = 0; g < kGroups; ++g) {
      uint32_t at[kTreeLanes];
      for (auto& node : at) node = 1;
      for (int level = 0; level < depth_; ++level) {
        for (int lane = 0; lane < kTreeLanes; ++lane) {
          const uint32_t place = places_[at[lane]];
          const float value = x[g * stride + (place & ~kMissingLeft) + lane];
          at[lane] = 2 * at[lane] + !goes_left(value, thresholds_[at[lane]], place);
        }
      }
      for (int lane = 0; lane < kTreeLanes; ++lane) {
        leaves[g * kTreeLanes + lane] = int32_t(at[lane]) - (1 << depth_);
      }
    }
  }

 private:
  const float* thresholds_;
  const uint32_t* places_;
  int depth_;
};

#endif

}  // namespace
}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright
