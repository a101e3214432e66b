// Loads and stores of SIMD registers in the type that sums are kept in: fp32 for 16-bit and fp32
// tensors, fp64 for fp64. Over at::vec, so the width follows the instruction set of the build.
#pragma once
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
using Vec = at::vec::Vectorized<Accumulate<T>>;

template <class T>
inline constexpr int64_t kLanes = Vec<T>::size();

template <class T>
inline Vec<T> load_lanes(const T* from) {
  if constexpr (std::is_same_v<T, Accumulate<T>>) {
    return Vec<T>::loadu(from);
  } else {
    Vec<T> lanes;
    at::vec::load_to_float<T>(from, lanes);
    return lanes;
  }
}

// The 16-bit words [from, from + count), fewer than a register widens, and zeros after them. By way
// of memory they would cost a call and a load that waits for stores.
#if defined(CPU_CAPABILITY_AVX512)
inline __m256i load_few_words(const void* from, int64_t count) {
  return _mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), from);
}
#elif defined(CPU_CAPABILITY_AVX2)
inline __m128i load_few_words(const void* from, int64_t count) {
  const auto up_to_four = [](const char* at, int64_t words) {
    uint64_t all = 0;
    if (words >= 4) {
      std::memcpy(&all, at, 8);
    } else if (words >= 2) {  // two loads that may overlap
      uint32_t first, last;
      std::memcpy(&first, at, 4);
      std::memcpy(&last, at + 2 * (words - 2), 4);
      all = first | uint64_t(last) << (16 * (words - 2));
    } else if (words == 1) {
      std::memcpy(&all, at, 2);
    }
    return int64_t(all);
  };
  const auto* at = static_cast<const char*>(from);
  return _mm_set_epi64x(count > 4 ? up_to_four(at + 8, count - 4) : 0, up_to_four(at, count));
}
#endif

template <class T>
inline Vec<T> load_few_lanes(const T* from, int64_t count) {
  if constexpr (std::is_same_v<T, Accumulate<T>>) {
    return Vec<T>::loadu(from, int(count));
  } else {
#if defined(CPU_CAPABILITY_AVX512)
    __m512 lanes;
    at::vec::cvt_to_fp32<T>(load_few_words(from, count), lanes);
    return lanes;
#elif defined(CPU_CAPABILITY_AVX2)
    __m256 lanes;
    at::vec::cvt_to_fp32<T>(load_few_words(from, count), lanes);
    return lanes;
#else
    T part[kLanes<T>];
    std::memset(static_cast<void*>(part), 0, sizeof part);
    std::memcpy(static_cast<void*>(part), from, size_t(count) * sizeof(T));
    return load_lanes(part);
#endif
  }
}

// The first `count` lanes; the others are 0 and their memory is not touched.
template <class T>
inline Vec<T> load_lanes(const T* from, int64_t count) {
  return count >= kLanes<T> ? load_lanes(from) : load_few_lanes(from, count);
}

template <class T>
inline void store_lanes(const Vec<T>& lanes, T* to, int64_t count = kLanes<T>) {
  if constexpr (std::is_same_v<T, Accumulate<T>>) {
    lanes.store(to, int(count));
  } else {
    at::vec::convert_from_float<T>(lanes, Vec<T>(0)).store(to, int(count));
  }
}

// What fmadd does to one lane: the same bits, so scalar and vector loops can share a result.
template <class T>
inline T multiply_add(T a, T b, T c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// The names that core/math.h gives them for scalars, so that one formula serves both; NaN goes the
// same way too, so that each is one instruction.
template <class T>
inline at::vec::Vectorized<T> min_of(const at::vec::Vectorized<T>& a,
                                     const at::vec::Vectorized<T>& b) {
  return at::vec::clamp_max(a, b);
}
template <class T>
inline at::vec::Vectorized<T> max_of(const at::vec::Vectorized<T>& a,
                                     const at::vec::Vectorized<T>& b) {
  return at::vec::clamp_min(a, b);
}

// The lower and the upper half of the lanes.
inline std::pair<at::vec::Vectorized<double>, at::vec::Vectorized<double>> widen(
    const at::vec::Vectorized<float>& lanes) {
#if defined(CPU_CAPABILITY_AVX512)
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(lanes)),
          _mm512_cvtps_pd(_mm512_extractf32x8_ps(lanes, 1))};
#elif defined(CPU_CAPABILITY_AVX2)
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(lanes)),
          _mm256_cvtps_pd(_mm256_extractf128_ps(lanes, 1))};
#else
  constexpr int kHalf = at::vec::Vectorized<double>::size();
  float narrow[2 * kHalf];
  double wide[2 * kHalf];
  lanes.store(narrow);
  for (int i = 0; i < 2 * kHalf; ++i) wide[i] = narrow[i];
  return {at::vec::Vectorized<double>::loadu(wide),
          at::vec::Vectorized<double>::loadu(wide + kHalf)};
#endif
}

// Whether any lane of a comparison's result is set.
template <class T>
inline bool any_lane(const at::vec::Vectorized<T>& mask) {
  constexpr int kAll = (1 << at::vec::Vectorized<T>::size()) - 1;
  return (mask.zero_mask() & kAll) != kAll;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
