// Calls ATen's brgemm, and says where it serves.
#include "tilewright/core/cpu/gemm.h"

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

namespace blas = at::native::cpublas;

#if defined(__x86_64__) && defined(CPUBLAS_BRGEMM_F32F32F32)

bool brgemm_serves_float() {
  return current_isa() == Isa::kAvx512 && at::globalContext().userEnabledMkldnn();
}

bool brgemm_serves_bfloat16() {
  static const bool dot_products = __builtin_cpu_supports("avx512bf16");
  return dot_products && current_isa() == Isa::kAvx512 && blas::could_pack(at::kBFloat16);
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
