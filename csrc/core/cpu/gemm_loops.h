// Matrix products of tiles in plain loops, for dtypes and machines that brgemm does not serve, and
// the choice between the two.
#pragma once
#include "tilewright/core/cpu/gemm.h"
#include "tilewright/core/cpu/vec.h"
#include "tilewright/core/math.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// kRows rows of C times kVectors registers of columns stay in registers over all of K. The last
// columns are few: `tail` of them.
template <int kRows, int kVectors, class T>
inline void gemm_block(const GemmShape& s, const T* a, const T* b, T* c, int64_t tail) {
  Vec<T> sums[kRows][kVectors];
  const auto lanes = [&](int v) { return v + 1 < kVectors ? kLanes<T> : tail; };
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Vec<T>(T(0));
  }
  for (int64_t k = 0; k < s.k; ++k) {
    Vec<T> row[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      row[v] = load_lanes(b + k * s.ldb + v * kLanes<T>, lanes(v));
    }
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> factor(a[r * s.lda + k]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = at::vec::fmadd(factor, row[v], sums[r][v]);
    }
  }
  // What is in C comes last: added to it one by one, many terms would lose digits to a large sum.
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      T* to = c + r * s.ldc + v * kLanes<T>;
      if (s.add) sums[r][v] = sums[r][v] + load_lanes(to, lanes(v));
      store_lanes<T>(sums[r][v], to, lanes(v));
    }
  }
}

// What every element sums, and in which order, does not depend on the other sizes.
template <class T>
inline void gemm_loops(const GemmShape& s, const T* a, const T* b, T* c) {
  constexpr int kRows = 4;
  for (int64_t n = 0; n < s.n; n += 2 * kLanes<T>) {
    const int64_t left = s.n - n;
    const bool two = left > kLanes<T>;
    const int64_t tail = two ? min_of(left - kLanes<T>, kLanes<T>) : min_of(left, kLanes<T>);
    for (int64_t m = 0; m < s.m;) {
      const T* rows = a + m * s.lda;
      T* to = c + m * s.ldc + n;
      if (m + kRows <= s.m) {
        two ? gemm_block<kRows, 2>(s, rows, b + n, to, tail)
            : gemm_block<kRows, 1>(s, rows, b + n, to, tail);
        m += kRows;
      } else {
        two ? gemm_block<1, 2>(s, rows, b + n, to, tail)
            : gemm_block<1, 1>(s, rows, b + n, to, tail);
        m += 1;
      }
    }
  }
}

// The product in the way that the machine has. `use_brgemm` is brgemm_serves_*() of G, asked once.
inline void gemm(bool, const GemmShape& s, const double* a, const double* b, double* c) {
  gemm_loops(s, a, b, c);
}
inline void gemm(bool use_brgemm, const GemmShape& s, const float* a, const float* b, float* c) {
  use_brgemm ? brgemm(s, a, b, c) : gemm_loops(s, a, b, c);
}
inline void gemm(bool, const GemmShape& s, const c10::BFloat16* a, const c10::BFloat16* b,
                 float* c) {
  brgemm(s, a, b, c);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
