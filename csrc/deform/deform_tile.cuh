// A block's tile of a matrix product whose factors it makes piece by piece in shared memory: on
// tensor cores for the 16-bit types, in fused multiply-adds for the others.
#pragma once
#include "tilewright/core/cuda/mma.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kDeformThreads = 128, kDeformRows = 64, kDeformColumns = 64;

// The factors of one step: a (rows, depth), b (depth, columns). Strides are such that the eight
// rows that ldmatrix reads lie in eight different groups of banks.
template <class T>
struct TileFactors {
  static constexpr int kDepth = sizeof(T) == 2 ? 32 : 16;
  static constexpr int kStrideA = kDepth + 16 / int(sizeof(T)),
                       kStrideB = kDeformColumns + 16 / int(sizeof(T));
  T *a, *b;
  TILEWRIGHT_HD explicit TileFactors(SharedMemory& shared)
      : a(shared.take<T>(kDeformRows * kStrideA)), b(shared.take<T>(kDepth * kStrideB)) {}
  TILEWRIGHT_DEVICE T* a_at(int row, int k) const { return a + row * kStrideA + k; }
  TILEWRIGHT_DEVICE T* b_at(int k, int column) const { return b + k * kStrideB + column; }
};

// Each thread's part of the sums: 8 rows by 4 columns.
template <class T>
class TileSums {
  using Acc = accumulate_t<T>;

 public:
  TILEWRIGHT_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums_[i][j] = Acc(0);
    }
  }
  TILEWRIGHT_DEVICE void add(const TileFactors<T>& factors) {
    const int row = int(threadIdx.x) / 16 * 8, column = int(threadIdx.x) % 16 * 4;
#pragma unroll 4
    for (int k = 0; k < TileFactors<T>::kDepth; ++k) {
      Acc a[8], b[4];
#pragma unroll
      for (int i = 0; i < 8; ++i) a[i] = to_accumulate(*factors.a_at(row + i, k));
#pragma unroll
      for (int j = 0; j < 4; ++j) b[j] = to_accumulate(*factors.b_at(k, column + j));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums_[i][j] += a[i] * b[j];
      }
    }
  }
  // visit(row, column, sum)
  template <class Visit>
  TILEWRIGHT_DEVICE void for_each(const Visit& visit) const {
    const int row = int(threadIdx.x) / 16 * 8, column = int(threadIdx.x) % 16 * 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) visit(row + i, column + j, sums_[i][j]);
    }
  }

 private:
  Acc sums_[8][4];
};

// Four warps, each 32 rows by 32 columns.
template <class T>
class MmaTileSums {
 public:
  TILEWRIGHT_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums_[i][j][e] = 0.f;
      }
    }
  }
  TILEWRIGHT_DEVICE void add(const TileFactors<T>& factors) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < TileFactors<T>::kDepth; k += 16) {
      uint32_t a[2][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load_matrices(a[i], factors.a_at(first_row() + 16 * i + lane % 16, k + lane / 16 * 8));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        load_matrices_transposed(
            b[j], factors.b_at(k + lane % 16, first_column() + 16 * j + lane / 16 * 8));
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t part[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          mma_m16n8k16<T>(sums_[i][j], a[i], part);
        }
      }
    }
  }
  template <class Visit>
  TILEWRIGHT_DEVICE void for_each(const Visit& visit) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          visit(first_row() + 16 * i + lane / 4 + e / 2 * 8,
                first_column() + 8 * j + lane % 4 * 2 + e % 2, sums_[i][j][e]);
        }
      }
    }
  }

 private:
  static TILEWRIGHT_DEVICE int first_row() { return int(threadIdx.x) / 64 * 32; }
  static TILEWRIGHT_DEVICE int first_column() { return int(threadIdx.x) / 32 % 2 * 32; }

  float sums_[2][4][4];
};
template <>
class TileSums<__half> : public MmaTileSums<__half> {};
template <>
class TileSums<__nv_bfloat16> : public MmaTileSums<__nv_bfloat16> {};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
