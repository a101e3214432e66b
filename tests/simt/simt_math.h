// CUDA's scalar intrinsics in plain C++. The approximate ones (__expf and its kin) are computed
// exactly: their rounding is one of the things the emulated device cannot show.
#pragma once
#include <math.h>

#include <bit>
#include <cstdint>

namespace tilewright::simt {
inline float fast_exp(float x) { return ::expf(x); }
inline float fast_exp10(float x) { return ::powf(10.f, x); }
inline float fast_log(float x) { return ::logf(x); }
inline float fast_log2(float x) { return ::log2f(x); }
inline float fast_log10(float x) { return ::log10f(x); }
inline float fast_pow(float x, float y) { return ::powf(x, y); }
inline float fast_sin(float x) { return ::sinf(x); }
inline float fast_cos(float x) { return ::cosf(x); }
}  // namespace tilewright::simt

// glibc's <math.h> declares functions of these names that nobody may call.
#define __expf ::tilewright::simt::fast_exp
#define __exp10f ::tilewright::simt::fast_exp10
#define __logf ::tilewright::simt::fast_log
#define __log2f ::tilewright::simt::fast_log2
#define __log10f ::tilewright::simt::fast_log10
#define __powf ::tilewright::simt::fast_pow
#define __sinf ::tilewright::simt::fast_sin
#define __cosf ::tilewright::simt::fast_cos

inline float rsqrtf(float x) noexcept { return 1.f / ::sqrtf(x); }
inline double rsqrt(double x) noexcept { return 1. / ::sqrt(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return ::sqrtf(x); }
inline float __frsqrt_rn(float x) { return float(1. / ::sqrt(double(x))); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return ::fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __fma_rn(double x, double y, double z) { return ::fma(x, y, z); }
inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }  // NaN: 0

namespace tilewright::simt {
// As a GPU converts: out of range to the nearest int, NaN to 0.
inline int saturate_int(float x) {
  if (!(x == x)) return 0;
  return x >= 2147483648.f ? INT32_MAX : x < -2147483648.f ? INT32_MIN : int(x);
}
}  // namespace tilewright::simt
inline int __float2int_rn(float x) { return tilewright::simt::saturate_int(::rintf(x)); }
inline int __float2int_rz(float x) { return tilewright::simt::saturate_int(::truncf(x)); }
inline int __float2int_rd(float x) { return tilewright::simt::saturate_int(::floorf(x)); }
inline int __float2int_ru(float x) { return tilewright::simt::saturate_int(::ceilf(x)); }
inline float __int2float_rn(int x) { return float(x); }

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero(uint64_t(x)); }
inline unsigned __brev(unsigned x) {
  x = (x & 0x55555555) << 1 | (x >> 1 & 0x55555555);
  x = (x & 0x33333333) << 2 | (x >> 2 & 0x33333333);
  x = (x & 0x0f0f0f0f) << 4 | (x >> 4 & 0x0f0f0f0f);
  return __builtin_bswap32(x);
}
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
inline int __mulhi(int x, int y) { return int(int64_t(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}

// CUDA's min and max are overloads in the global namespace; those of floats pass over NaN.
#define TILEWRIGHT_SIMT_MINMAX(T)                  \
  inline T min(T x, T y) { return y < x ? y : x; } \
  inline T max(T x, T y) { return x < y ? y : x; }
TILEWRIGHT_SIMT_MINMAX(int)
TILEWRIGHT_SIMT_MINMAX(unsigned)
TILEWRIGHT_SIMT_MINMAX(long)
TILEWRIGHT_SIMT_MINMAX(unsigned long)
TILEWRIGHT_SIMT_MINMAX(long long)
TILEWRIGHT_SIMT_MINMAX(unsigned long long)
#undef TILEWRIGHT_SIMT_MINMAX
inline float min(float x, float y) { return ::fminf(x, y); }
inline float max(float x, float y) { return ::fmaxf(x, y); }
inline double min(double x, double y) { return ::fmin(x, y); }
inline double max(double x, double y) { return ::fmax(x, y); }
