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

// Rows of a tile at equal distances in memory; those outside of [begin, end) are zeros.
template <class T>
struct TileRows {
  const T* first;  // row 0, whether or not it exists
  int64_t stride;
  int begin, end;
};

// Eight elements that are not aligned, those from `count` on as zeros.
template <class T>
TILEWRIGHT_DEVICE Pack<T, 8> gather_pack(const T* from, int count) {
  Pack<T, 8> values;
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = i < count ? ldg(from + i) : from_accumulate<T>(0.f);
  return values;
}

// Starts the copies of kRows rows; columns from `columns` on are zeros. `anything` is an address of
// the tensor. Where rows are not aligned the elements go one by one, and are there at the next
// barrier.
template <int kRows, int kColumns, bool kAnyAlignment, class T>
TILEWRIGHT_DEVICE void load_tile(T* tile, const TileRows<T>& rows, int columns, bool aligned,
                                 const T* anything) {
  constexpr int kGroups = kColumns / 8, kStep = kAttentionThreads / kGroups;
  static_assert(kRows % kStep == 0);
  const int row = int(threadIdx.x) / kGroups, column = int(threadIdx.x) % kGroups * 8;
  const bool inside = column < columns;
  const T* from = rows.first + row * rows.stride + column;
#pragma unroll(kAnyAlignment ? 1 : 4)
  for (int first = 0; first < kRows; first += kStep, from += kStep * rows.stride) {
    const int r = first + row;
    const bool valid = inside && r >= rows.begin && r < rows.end;
    // Written so that the place of a row differs by a constant from the one 8 rows before.
    T* to = tile + first / 8 * 8 * kColumns + tile_place<kColumns>(first % 8 + row, column / 8);
    if (!kAnyAlignment || aligned) {
      copy_async<16>(to, valid ? from : anything, valid);
    } else {
      store_pack(to, gather_pack(from, valid ? columns - column : 0));
    }
  }
}

// The same for rows that lie anywhere: row_at(r) is null where zeros are wanted.
template <int kRows, int kColumns, class T, class RowAt>
TILEWRIGHT_DEVICE void load_scattered(T* tile, int columns, bool aligned, const T* anything,
                                      const RowAt& row_at) {
  constexpr int kGroups = kColumns / 8, kStep = kAttentionThreads / kGroups;
  const int row = int(threadIdx.x) / kGroups, column = int(threadIdx.x) % kGroups * 8;
#pragma unroll 1
  for (int r = row; r < kRows; r += kStep) {
    const T* from = row_at(r);
    const bool valid = from != nullptr && column < columns;
    T* to = tile + tile_place<kColumns>(r, column / 8);
    if (aligned) {
      copy_async<16>(to, valid ? from + column : anything, valid);
    } else {
      store_pack(to, gather_pack(from + column, valid ? columns - column : 0));
    }
  }
}

// The place of a group of 8 columns in a row whose group 0 is at `row_place`: only three bits are
// exchanged. Rows are whole multiples of 64 columns, so that the bits stand in the same places.
template <int kColumns>
TILEWRIGHT_DEVICE int group_place(int row_place, int group) {
  static_assert(kColumns % 64 == 0);
  const int place = row_place ^ (group & 7) * 8;
  return kColumns == 64 ? place : place + (group & ~7) * 8;
}

// s (16 M, 8 N) += a's rows from a_row on, times b's from b_row on, transposed. The first rows are
// multiples of 8.
template <int kColumns, class T, int M, int N>
TILEWRIGHT_DEVICE void multiply_rows(const T* a, int a_row, const T* b, int b_row,
                                     float (&s)[M][N][4]) {
  const int lane = threadIdx.x % 32;
  const int a_lane = tile_place<kColumns>(a_row + lane % 16, lane / 16);
  const int b_lane = tile_place<kColumns>(b_row + lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll 2
  for (int k = 0; k < kColumns / 16; ++k) {
    const T* a_k = a + group_place<kColumns>(a_lane, 2 * k);
    const T* b_k = b + group_place<kColumns>(b_lane, 2 * k);
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) load_matrices(left[m], a_k + 16 * m * kColumns);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t right[4];
      load_matrices(right, b_k + 8 * n * kColumns);
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
  const int b_lane = tile_place<kColumns>(b_row + lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 2) {
      uint32_t right[4];
      load_matrices_transposed(right, b + 16 * k * kColumns + group_place<kColumns>(b_lane, n));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16<T>(out[m][n], left[m][k], {right[0], right[1]});
        mma_m16n8k16<T>(out[m][n + 1], left[m][k], {right[2], right[3]});
      }
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
