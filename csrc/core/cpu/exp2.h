// 2^x of SIMD registers for softmax: no special cases but those that a softmax needs.
#pragma once
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#include <immintrin.h>
#endif

#include "tilewright/core/cpu/vec.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// For x <= 127: -inf gives 0, NaN gives NaN. The relative error is that of the minimax polynomial
// of so many degrees on [-1/2, 1/2]: 5: 9e-8, 4: 3e-6, both of float32; float64 is exact to an ulp.
template <int kDegree>
inline at::vec::Vectorized<double> exp2_lanes(const at::vec::Vectorized<double>& x) {
  return x.exp2();
}

template <int kDegree>
inline at::vec::Vectorized<float> exp2_lanes(const at::vec::Vectorized<float>& x) {
  static_assert(kDegree == 4 || kDegree == 5);
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  using V = at::vec::Vectorized<float>;
#if defined(CPU_CAPABILITY_AVX512)
  // The second operand wins where one is NaN. Below -200 all is 0, and -inf must not reach x - n.
  const V bounded = _mm512_max_ps(_mm512_set1_ps(-200.f), x);
  const V n = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const V bounded = _mm256_max_ps(_mm256_set1_ps(-200.f), x);
  const V n = _mm256_round_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
  const V f = bounded - n;
  V p;
  if constexpr (kDegree == 5) {
    p = at::vec::fmadd(V(0x1.5bba14p-10f), f, V(0x1.3cea88p-7f));
    p = at::vec::fmadd(p, f, V(0x1.c6b752p-5f));
    p = at::vec::fmadd(p, f, V(0x1.ebf9bcp-3f));
    p = at::vec::fmadd(p, f, V(0x1.62e42ap-1f));
  } else {
    p = at::vec::fmadd(V(0x1.3a02ccp-7f), f, V(0x1.c9fc46p-5f));
    p = at::vec::fmadd(p, f, V(0x1.ec0378p-3f));
    p = at::vec::fmadd(p, f, V(0x1.62e12cp-1f));
  }
  p = at::vec::fmadd(p, f, V(1.f));
#if defined(CPU_CAPABILITY_AVX512)
  return _mm512_scalef_ps(p, n);
#else
  // 2^n in two halves: n reaches -200, whose exponent no float has.
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const V first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const V second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return p * first * second;
#endif
#else
  return x.exp2();
#endif
}

// The same of one value, where rows and not elements are many.
inline float exp2_of(float x) { return std::exp2(x); }
inline double exp2_of(double x) { return std::exp2(x); }

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
