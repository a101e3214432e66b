// 2^x of SIMD registers for softmax: no special cases but those that a softmax needs.
#pragma once
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#include <immintrin.h>
#endif

#include "tilewright/core/cpu/vec.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// For x <= 127: -inf gives 0, NaN gives NaN; of float32, what is less than 2^-125 is 0 too. The
// relative error is that of the minimax polynomial of so many degrees on [-1/2, 1/2]: 5: 9e-8, 4:
// 3e-6, both of float32; float64 is exact to an ulp.
template <int kDegree>
inline at::vec::Vectorized<double> exp2_lanes(const at::vec::Vectorized<double>& x) {
  return x.exp2();
}

// The same of several registers, step by step: a processor's scheduler does not look far enough
// ahead to overlap one register's steps with the next one's. nade's sigmoids took Zen 5 about 6
// cycles for each register in fours, and 8 to 10 one by one.
template <int kDegree, int kCount>
inline void exp2_each(at::vec::Vectorized<float> (&x)[kCount]) {
  static_assert(kDegree == 4 || kDegree == 5);
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  using V = at::vec::Vectorized<float>;
  V n[kCount], p[kCount];
  // No result is denormal: Intel's processors take more than a hundred cycles for each such
  // register, and masked scores are -inf. The second operand of max wins where one is NaN.
#if defined(CPU_CAPABILITY_AVX512)
  const __m512 least = _mm512_set1_ps(-125.f);
  __mmask16 seen[kCount];
  for (int k = 0; k < kCount; ++k) seen[k] = _mm512_cmp_ps_mask(x[k], least, _CMP_NLT_UQ);
  for (int k = 0; k < kCount; ++k) x[k] = _mm512_max_ps(least, x[k]);
  for (int k = 0; k < kCount; ++k) {
    n[k] = _mm512_roundscale_ps(x[k], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
#else
  const __m256 least = _mm256_set1_ps(-125.f);
  V seen[kCount];
  for (int k = 0; k < kCount; ++k) seen[k] = _mm256_cmp_ps(x[k], least, _CMP_NLT_UQ);
  for (int k = 0; k < kCount; ++k) x[k] = _mm256_max_ps(least, x[k]);
  for (int k = 0; k < kCount; ++k) {
    n[k] = _mm256_round_ps(x[k], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
#endif
  for (int k = 0; k < kCount; ++k) x[k] = x[k] - n[k];
  const auto step = [&](float coefficient) {
    for (int k = 0; k < kCount; ++k) p[k] = at::vec::fmadd(p[k], x[k], V(coefficient));
  };
  if constexpr (kDegree == 5) {
    for (int k = 0; k < kCount; ++k) p[k] = V(0x1.5bba14p-10f);
    step(0x1.3cea88p-7f);
    step(0x1.c6b752p-5f);
    step(0x1.ebf9bcp-3f);
    step(0x1.62e42ap-1f);
  } else {
    for (int k = 0; k < kCount; ++k) p[k] = V(0x1.3a02ccp-7f);
    step(0x1.c9fc46p-5f);
    step(0x1.ec0378p-3f);
    step(0x1.62e12cp-1f);
  }
  step(1.f);
#if defined(CPU_CAPABILITY_AVX512)
  for (int k = 0; k < kCount; ++k) x[k] = _mm512_maskz_scalef_ps(seen[k], p[k], n[k]);
#else
  for (int k = 0; k < kCount; ++k) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n[k]), _mm256_set1_epi32(127));
    x[k] = _mm256_and_ps(p[k] * V(_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))), seen[k]);
  }
#endif
#else
  for (int k = 0; k < kCount; ++k) x[k] = x[k].exp2();
#endif
}

template <int kDegree, int kCount>
inline void exp2_each(at::vec::Vectorized<double> (&x)[kCount]) {
  for (int k = 0; k < kCount; ++k) x[k] = x[k].exp2();
}

template <int kDegree>
inline at::vec::Vectorized<float> exp2_lanes(const at::vec::Vectorized<float>& x) {
  at::vec::Vectorized<float> one[1] = {x};
  exp2_each<kDegree>(one);
  return one[0];
}

// The same of one value, where rows and not elements are many.
inline float exp2_of(float x) { return std::exp2(x); }
inline double exp2_of(double x) { return std::exp2(x); }

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
