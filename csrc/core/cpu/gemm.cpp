// Calls ATen's brgemm, and says where it serves.
#include "tilewright/core/cpu/gemm.h"

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

namespace blas = at::native::cpublas;

#if defined(__x86_64__) && defined(CPUBLAS_BRGEMM_F32F32F32)

bool brgemm_serves_float() {
  return current_isa() != Isa::kBaseline && at::globalContext().userEnabledMkldnn();
}

namespace {

// Dot products of pairs run at twice the rate of float32 on AMD's cores. On Intel's they do not: a
// matrix product took twice as long where a virtual machine hides AMX's tiles.
bool pairs_are_fast() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAmxBfloat16 = 1u << 22;
  const bool tiles = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxBfloat16);
  __builtin_cpu_init();
  return tiles || !__builtin_cpu_is("intel");
}

// ATen refuses pairs of rows where its oneDNN has no kernel for them. It has no question for that:
// could_pack() says no wherever there are no AMX tiles.
bool takes_pairs() {
  const c10::BFloat16 a[2] = {1.f, 2.f}, b[2] = {3.f, 4.f};
  float c[1] = {0};
  try {
    brgemm({1, 1, 2, 2, 1, 1, false}, a, b, c);
    brgemm_done();
  } catch (const c10::Error&) {
    return false;
  }
  return c[0] == 11.f;
}

}  // namespace

bool brgemm_serves_bfloat16() {
  if (current_isa() != Isa::kAvx512 || !at::globalContext().userEnabledMkldnn()) return false;
  static const bool serves =
      __builtin_cpu_supports("avx512bf16") && pairs_are_fast() && takes_pairs();
  return serves;
}

void brgemm(const GemmShape& s, const float* a, const float* b, float* c) {
  blas::brgemm(s.m, s.n, s.k, s.lda, s.ldb, s.ldc, s.add, a, b, c, /*is_vnni=*/false);
}
void brgemm(const GemmShape& s, const c10::BFloat16* a, const c10::BFloat16* b, float* c) {
  blas::brgemm(s.m, s.n, s.k, s.lda, s.ldb, s.ldc, s.add, a, b, c, /*is_vnni=*/true);
}
void brgemm_done() { blas::brgemm_release(); }

#else

bool brgemm_serves_float() { return false; }
bool brgemm_serves_bfloat16() { return false; }
void brgemm(const GemmShape&, const float*, const float*, float*) {}
void brgemm(const GemmShape&, const c10::BFloat16*, const c10::BFloat16*, float*) {}
void brgemm_done() {}

#endif

}  // namespace tilewright
