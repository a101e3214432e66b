// The one door to matrix products of small tiles in CPU kernels: oneDNN's brgemm through ATen where
// it serves this machine (95 to 100 % of the instruction peak), and otherwise loops of this
// project (gemm_loops.h).
#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>

namespace tilewright {

// C (M, N) = A (M, K) B (K, N), plus C where `add`: row-major, leading dimensions in elements.
// N, K and the leading dimensions should take few values: each combination has its own machine
// code, made at its first use in each thread.
struct GemmShape {
  int64_t m, n, k, lda, ldb, ldc;
  bool add;
};

// Matrices whose rows lie further apart are to be packed first: brgemm's machine code counts bytes
// in 32 bits, over all of K.
inline constexpr int64_t kMostLeadingDimension = int64_t(1) << 16;

// Whether brgemm serves float32, and bfloat16 with hardware dot products, under the instruction set
// that the process runs with.
bool brgemm_serves_float();
bool brgemm_serves_bfloat16();

void brgemm(const GemmShape& shape, const float* a, const float* b, float* c);
// B holds pairs of rows: element (k, n) is b[(k / 2 * ldb + n) * 2 + k % 2], K even.
void brgemm(const GemmShape& shape, const c10::BFloat16* a, const c10::BFloat16* b, float* c);
// After a thread's last product of a call: gives the tile registers back.
void brgemm_done();

}  // namespace tilewright
