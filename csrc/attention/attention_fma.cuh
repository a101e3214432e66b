// The two products of attention from operands staged in shared memory in the type of sums, a few
// columns of each row at a time, so that one kernel serves every number of columns: for float64,
// float32, and the gradient of a bias. Where PyTorch allows TF32, float32's run on tensor cores.
// Results lie in registers as mma's do.
#pragma once
#include "tilewright/attention/attention_rows.cuh"
#include "tilewright/core/cuda/mma.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Columns of both operands that a product takes at a time.
inline constexpr int kFmaDepth = 32;
// Columns of the result that a block owns: as many as registers hold beside a tile of
// probabilities. A block of the next columns computes the probabilities again.
template <class Acc>
inline constexpr int kFmaColumns = sizeof(Acc) == 8 ? 32 : 64;

template <class T, bool kTf32 = false>
struct FmaParts {
  using Acc = accumulate_t<T>;
  static_assert(!kTf32 || sizeof(Acc) == 4);  // TF32 holds the 16-bit types whole
  // From row to row of left and right, weights, columns: what lanes read at once lies in different
  // banks.
  static constexpr int kDepth = kFmaDepth + (kTf32 ? 4 : 1);
  static constexpr int kKeys = kTileKeys + (kTf32 ? 4 : 1);
  static constexpr int kColumns = kFmaColumns<Acc> + (kTf32 ? 8 : 0);

  Acc *left, *right;  // (64, kDepth)
  Acc* columns;       // (64, kColumns)
  Acc* weights;       // (kTileQueries, kKeys)
  DropoutTile dropout;
  uint8_t* absent;  // (kTileKeys,)
  Acc* scratch;     // (32,)
  TILEWRIGHT_HD FmaParts(SharedMemory& shared)
      : left(shared.take<Acc>(64 * kDepth)),
        right(shared.take<Acc>(64 * kDepth)),
        columns(shared.take<Acc>(64 * kColumns)),
        weights(shared.take<Acc>(kTileQueries * kKeys)),
        dropout{shared.take<uint8_t>(kTileQueries * 16)},
        absent(shared.take<uint8_t>(kTileKeys)),
        scratch(shared.take<Acc>(32)) {}

  // Of what a product is to take.
  TILEWRIGHT_DEVICE static Acc rounded(Acc value) {
    if constexpr (kTf32) {
      return __uint_as_float(to_tf32(value));
    } else {
      return value;
    }
  }
  // Where the lane's element of a tile lies in weights.
  TILEWRIGHT_DEVICE static int weight_place(int line, int column) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return (warp * 16 + lane / 4 + 8 * line) * kKeys + lane % 4 * 2 + column;
  }
  TILEWRIGHT_DEVICE static int column_place(int row, int column) { return row * kColumns + column; }

  // Columns [first, first + kWidth) of 64 rows; zeros where row_at(r) is null and from `end` on.
  template <int kWidth, int kStride, class RowAt>
  TILEWRIGHT_DEVICE static void stage(Acc* tile, int first, int end, const RowAt& row_at) {
#pragma unroll 4
    for (int c = threadIdx.x; c < 64 * kWidth; c += kAttentionThreads) {
      const int r = c / kWidth, column = first + c % kWidth;
      const auto* row = row_at(r);
      tile[r * kStride + c % kWidth] =
          row != nullptr && column < end ? rounded(to_accumulate(ldg(row + column))) : Acc(0);
    }
  }
  template <class RowAt>
  TILEWRIGHT_DEVICE void stage_columns(int first, int end, const RowAt& row_at) const {
    stage<kFmaColumns<Acc>, kColumns>(columns, first, end, row_at);
  }

  // s (16 of 64 rows of a, 64 rows of b) += a b^T over `depth` columns.
  template <class RowA, class RowB>
  TILEWRIGHT_DEVICE void multiply_rows(const RowA& row_a, const RowB& row_b, int depth,
                                       Acc (&s)[kTileKeys / 8][4]) const {
    for (int first = 0; first < depth; first += kFmaDepth) {
      __syncthreads();
      stage<kFmaDepth, kDepth>(left, first, depth, row_a);
      stage<kFmaDepth, kDepth>(right, first, depth, row_b);
      __syncthreads();
      if constexpr (kTf32) {
        multiply_rows_tf32(s);
      } else {
        multiply_rows_fma(s);
      }
    }
  }

  // out (16 of 64 lines, kFmaColumns<Acc>) += weights (or their transpose) times columns.
  template <bool kTransposed>
  TILEWRIGHT_DEVICE void multiply_columns(Acc (&out)[kFmaColumns<Acc> / 8][4]) const {
    if constexpr (kTf32) {
      multiply_columns_tf32<kTransposed>(out);
    } else {
      multiply_columns_fma<kTransposed>(out);
    }
  }

 private:
  template <bool kTransposed>
  TILEWRIGHT_DEVICE Acc weight(int line, int k) const {
    return weights[kTransposed ? k * kKeys + line : line * kKeys + k];
  }

  TILEWRIGHT_DEVICE void multiply_rows_fma(Acc (&s)[kTileKeys / 8][4]) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const Acc* a = left + (warp * 16 + g) * kDepth;
    const Acc* b = right + 2 * t * kDepth;
    constexpr int kPart = sizeof(Acc) == 8 ? 2 : 4;  // as many as registers hold
    // A sum of its own for these columns: the error of one long chain grows with its length.
#pragma unroll
    for (int part = 0; part < kTileKeys / 8; part += kPart) {
      Acc sum[kPart][4] = {};
#pragma unroll 2
      for (int k = 0; k < kFmaDepth; ++k) {
        const Acc a0 = a[k], a1 = a[8 * kDepth + k];
#pragma unroll
        for (int n = 0; n < kPart; ++n) {
          const Acc* b_k = b + 8 * (part + n) * kDepth + k;
          const Acc b0 = b_k[0], b1 = b_k[kDepth];
          sum[n][0] = fma(a0, b0, sum[n][0]);
          sum[n][1] = fma(a0, b1, sum[n][1]);
          sum[n][2] = fma(a1, b0, sum[n][2]);
          sum[n][3] = fma(a1, b1, sum[n][3]);
        }
      }
#pragma unroll
      for (int n = 0; n < kPart; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[part + n][e] += sum[n][e];
      }
    }
  }

  template <bool kTransposed>
  TILEWRIGHT_DEVICE void multiply_columns_fma(Acc (&out)[kFmaColumns<Acc> / 8][4]) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int line = warp * 16 + g;
#pragma unroll 2
    for (int k = 0; k < 64; ++k) {
      const Acc w0 = weight<kTransposed>(line, k), w1 = weight<kTransposed>(line + 8, k);
#pragma unroll
      for (int n = 0; n < kFmaColumns<Acc> / 8; ++n) {
        const Pack<Acc, 2> b = load_pack<2>(columns + column_place(k, 8 * n + 2 * t));
        out[n][0] = fma(w0, b[0], out[n][0]);
        out[n][1] = fma(w0, b[1], out[n][1]);
        out[n][2] = fma(w1, b[0], out[n][2]);
        out[n][3] = fma(w1, b[1], out[n][3]);
      }
    }
  }

  TILEWRIGHT_DEVICE void multiply_rows_tf32(Acc (&s)[kTileKeys / 8][4]) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const Acc* a = left + (warp * 16 + g) * kDepth + t;
    const Acc* b = right + g * kDepth + t;
#pragma unroll 2
    for (int k = 0; k < kFmaDepth; k += 8) {
      const uint32_t lines[4] = {__float_as_uint(a[k]), __float_as_uint(a[8 * kDepth + k]),
                                 __float_as_uint(a[k + 4]), __float_as_uint(a[8 * kDepth + k + 4])};
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; ++n) {
        const Acc* b_k = b + 8 * n * kDepth + k;
        mma_m16n8k8_tf32(s[n], lines, {__float_as_uint(b_k[0]), __float_as_uint(b_k[4])});
      }
    }
  }

  template <bool kTransposed>
  TILEWRIGHT_DEVICE void multiply_columns_tf32(Acc (&out)[kFmaColumns<Acc> / 8][4]) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int line = warp * 16 + g;
#pragma unroll 2
    for (int k = t; k < 64; k += 8) {
      const uint32_t lines[4] = {__float_as_uint(weight<kTransposed>(line, k)),
                                 __float_as_uint(weight<kTransposed>(line + 8, k)),
                                 __float_as_uint(weight<kTransposed>(line, k + 4)),
                                 __float_as_uint(weight<kTransposed>(line + 8, k + 4))};
#pragma unroll
      for (int n = 0; n < kFmaColumns<Acc> / 8; ++n) {
        mma_m16n8k8_tf32(out[n], lines,
                         {__float_as_uint(columns[column_place(k, 8 * n + g)]),
                          __float_as_uint(columns[column_place(k + 4, 8 * n + g)])});
      }
    }
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
