// Tiles of 16-bit rows in shared memory and the two products that attention makes of them on tensor
// cores.
//
// A row's groups of 8 columns (16 bytes) are stored in the order of their index xor row % 8, so
// that the eight rows of a matrix that ldmatrix reads lie in eight different groups of banks.
#pragma once
#include "tilewright/attention/attention_scores.cuh"
#include "tilewright/core/cuda/async_copy.h"
#include "tilewright/core/cuda/mma.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <int kColumns>
TILEWRIGHT_DEVICE int tile_place(int row, int group) {
  return row * kColumns + (group ^ (row & 7)) * 8;
}

// Starts the copies of kRows rows; row_at(r) is null where zeros are wanted, as columns from
// `columns` on are. `anything` is an address of the tensor. Where rows are not aligned the elements
// go one by one, and are there at the next barrier.
template <int kRows, int kColumns, bool kAnyAlignment, class T, class RowAt>
TILEWRIGHT_DEVICE void load_tile(T* tile, int columns, bool aligned, const T* anything,
                                 const RowAt& row_at) {
  constexpr int kGroups = kColumns / 8, kCopies = kRows * kGroups / kAttentionThreads;
  static_assert(kRows * kGroups % kAttentionThreads == 0);
#pragma unroll 4
  for (int copy = 0; copy < kCopies; ++copy) {
    const int c = copy * kAttentionThreads + int(threadIdx.x);
    const int r = c / kGroups, group = c % kGroups;
    const T* row = row_at(r);
    T* to = tile + tile_place<kColumns>(r, group);
    const bool inside = row != nullptr && group * 8 < columns;
    if (!kAnyAlignment || aligned) {
      copy_async<16>(to, inside ? row + group * 8 : anything, inside);
    } else {
      Pack<T, 8> values;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const bool valid = inside && group * 8 + i < columns;
        values[i] = valid ? ldg(row + group * 8 + i) : from_accumulate<T>(0.f);
      }
      store_pack(to, values);
    }
  }
}

// s (16 M, 8 N) += a's rows from a_row on, times b's from b_row on, transposed.
template <int kColumns, class T, int M, int N>
TILEWRIGHT_DEVICE void multiply_rows(const T* a, int a_row, const T* b, int b_row,
                                     float (&s)[M][N][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll 4
  for (int k = 0; k < kColumns / 16; ++k) {
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      load_matrices(left[m],
                    a + tile_place<kColumns>(a_row + 16 * m + lane % 16, 2 * k + lane / 16));
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t right[4];
      load_matrices(right, b + tile_place<kColumns>(b_row + 8 * n + lane / 16 * 8 + lane % 8,
                                                    2 * k + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16<T>(s[m][n], left[m], {right[0], right[1]});
        mma_m16n8k16<T>(s[m][n + 1], left[m], {right[2], right[3]});
      }
    }
  }
}

// Results as the left side of the next product, in 16 bits.
template <class T, int M, int N>
TILEWRIGHT_DEVICE void pack_results(const float (&s)[M][N][4], uint32_t (&packed)[M][N / 2][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      packed[m][n / 2][n % 2 * 2] = pack_pair<T>(s[m][n][0], s[m][n][1]);
      packed[m][n / 2][n % 2 * 2 + 1] = pack_pair<T>(s[m][n][2], s[m][n][3]);
    }
  }
}

// out (16 M, kColumns) += left (16 M, 16 K) times b's rows from b_row on.
template <int kColumns, class T, int M, int K>
TILEWRIGHT_DEVICE void multiply_columns(const uint32_t (&left)[M][K][4], const T* b, int b_row,
                                        float (&out)[M][kColumns / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 2) {
      uint32_t right[4];
      load_matrices_transposed(right,
                               b + tile_place<kColumns>(b_row + 16 * k + lane % 16, n + lane / 16));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16<T>(out[m][n], left[m][k], {right[0], right[1]});
        mma_m16n8k16<T>(out[m][n + 1], left[m][k], {right[2], right[3]});
      }
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
