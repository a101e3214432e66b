// The two products of attention without tensor cores, for float64, exact float32, and the gradient
// of a bias: operands are staged in shared memory in the type of sums, a few columns of each row at
// a time, so that one kernel serves every number of columns. Results lie in registers as mma's do.
#pragma once
#include "tilewright/attention/attention_rows.cuh"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Columns of both operands that a product takes at a time; the column behind them keeps the rows
// of a quarter warp in different banks.
inline constexpr int kFmaDepth = 32, kFmaStride = kFmaDepth + 1;
// Columns of the result that a block owns: as many as registers hold beside a tile of
// probabilities. A block of the next columns computes the probabilities again.
template <class Acc>
inline constexpr int kFmaColumns = sizeof(Acc) == 8 ? 32 : 64;
inline constexpr int kWeightStride = kTileKeys + 1;

template <class T>
struct FmaParts {
  using Acc = accumulate_t<T>;
  Acc *left, *right;  // (64, kFmaStride)
  Acc* columns;       // (64, kFmaColumns<Acc>)
  Acc* weights;       // (kTileQueries, kWeightStride)
  DropoutTile dropout;
  uint8_t* absent;  // (kTileKeys,)
  Acc* scratch;     // (32,)
  TILEWRIGHT_HD FmaParts(SharedMemory& shared)
      : left(shared.take<Acc>(64 * kFmaStride)),
        right(shared.take<Acc>(64 * kFmaStride)),
        columns(shared.take<Acc>(64 * kFmaColumns<Acc>)),
        weights(shared.take<Acc>(kTileQueries * kWeightStride)),
        dropout{shared.take<uint8_t>(kTileQueries * 16)},
        absent(shared.take<uint8_t>(kTileKeys)),
        scratch(shared.take<Acc>(32)) {}
};

// Columns [first, first + kColumns) of 64 rows; zeros where row_at(r) is null and from `columns`
// on.
template <int kColumns, int kStride, class Acc, class RowAt>
TILEWRIGHT_DEVICE void stage_rows(Acc* tile, int first, int columns, const RowAt& row_at) {
#pragma unroll 4
  for (int c = threadIdx.x; c < 64 * kColumns; c += kAttentionThreads) {
    const int r = c / kColumns, column = first + c % kColumns;
    const auto* row = row_at(r);
    tile[r * kStride + c % kColumns] =
        row != nullptr && column < columns ? to_accumulate(ldg(row + column)) : Acc(0);
  }
}

// s (16 of 64 rows of a, 64 rows of b) += a b^T over `depth` columns.
template <class Acc, class RowA, class RowB>
TILEWRIGHT_DEVICE void fma_rows(Acc* left, Acc* right, const RowA& row_a, const RowB& row_b,
                                int depth, Acc (&s)[kTileKeys / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const Acc* a = left + (warp * 16 + g) * kFmaStride;
  const Acc* b = right + 2 * t * kFmaStride;
  constexpr int kPart = sizeof(Acc) == 8 ? 2 : 4;  // as many as registers hold
  for (int first = 0; first < depth; first += kFmaDepth) {
    __syncthreads();
    stage_rows<kFmaDepth, kFmaStride>(left, first, depth, row_a);
    stage_rows<kFmaDepth, kFmaStride>(right, first, depth, row_b);
    __syncthreads();
    // A sum of its own for these columns: the error of one long chain grows with its length.
#pragma unroll
    for (int part = 0; part < kTileKeys / 8; part += kPart) {
      Acc sum[kPart][4] = {};
#pragma unroll 2
      for (int k = 0; k < kFmaDepth; ++k) {
        const Acc a0 = a[k], a1 = a[8 * kFmaStride + k];
#pragma unroll
        for (int n = 0; n < kPart; ++n) {
          const Acc* b_k = b + 8 * (part + n) * kFmaStride + k;
          const Acc b0 = b_k[0], b1 = b_k[kFmaStride];
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
}

// out (16 of 64 lines, kFmaColumns<Acc>) += weights (or their transpose) times 64 staged rows.
template <bool kTransposed, class Acc>
TILEWRIGHT_DEVICE void fma_columns(const Acc* weights, const Acc* columns,
                                   Acc (&out)[kFmaColumns<Acc> / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int line = warp * 16 + g;
#pragma unroll 2
  for (int k = 0; k < 64; ++k) {
    const Acc w0 = weights[kTransposed ? k * kWeightStride + line : line * kWeightStride + k];
    const Acc w1 =
        weights[kTransposed ? k * kWeightStride + line + 8 : (line + 8) * kWeightStride + k];
#pragma unroll
    for (int n = 0; n < kFmaColumns<Acc> / 8; ++n) {
      const Pack<Acc, 2> b = load_pack<2>(columns + k * kFmaColumns<Acc> + 8 * n + 2 * t);
      out[n][0] = fma(w0, b[0], out[n][0]);
      out[n][1] = fma(w0, b[1], out[n][1]);
      out[n][2] = fma(w1, b[0], out[n][2]);
      out[n][3] = fma(w1, b[1], out[n][3]);
    }
  }
}

// Where the lane's element lies in FmaParts::weights.
TILEWRIGHT_DEVICE int weight_place(int line, int column) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  return (warp * 16 + lane / 4 + 8 * line) * kWeightStride + lane % 4 * 2 + column;
}

// What makes probabilities and their derivatives of one tile of queries and keys.
template <class T>
struct FmaTile {
  using Acc = accumulate_t<T>;
  static constexpr int kN = kTileKeys / 8;

  const AttentionParams<T>& p;
  const FmaParts<T>& parts;
  const AttentionSequence& seq;
  int head, query0, key0;

  TILEWRIGHT_DEVICE int line_query(int line) const {
    return query0 + int(threadIdx.x / 32) * 16 + int(threadIdx.x % 32) / 4 + 8 * line;
  }
  TILEWRIGHT_DEVICE int first_key() const { return key0 + int(threadIdx.x % 4) * 2; }
  TILEWRIGHT_DEVICE auto queries(const HeadRows<const T>& rows) const {
    return [this, &rows](int r) {
      return query0 + r < seq.q_len ? query_row(p, rows, seq, head, query0 + r)
                                    : static_cast<const T*>(nullptr);
    };
  }
  // Keys that no query of the tile sees are not touched.
  TILEWRIGHT_DEVICE auto keys(const HeadRows<const T>& rows, IntRange seen) const {
    return [this, &rows, seen](int r) {
      const int j = key0 + r;
      return j >= seen.begin && j < seen.end
                 ? rows.at(seq.tensor_batch(p.cu_k), head / p.group, seq.k_row + j)
                 : static_cast<const T*>(nullptr);
    };
  }
  TILEWRIGHT_DEVICE void fill_dropout() const {
    if (!p.rng_state) return;
    parts.dropout.fill(p, kTileQueries, key0, [&](int row, int64_t& of, int& i) {
      of = int64_t(seq.batch) * p.heads + head, i = query0 + row;
    });
  }
  TILEWRIGHT_DEVICE Acc kept(int line, int column) const {
    if (!p.rng_state) return 1;
    const int row = int(threadIdx.x / 32) * 16 + int(threadIdx.x % 32) / 4 + 8 * line;
    return parts.dropout.keeps(row, int(threadIdx.x % 4) * 2 + column) ? p.keep_scale : Acc(0);
  }

  // Before dropout. With a softcap, weights keeps the tanh of each lane's own elements.
  TILEWRIGHT_DEVICE void probabilities(IntRange seen, Acc (&s)[kN][4]) const {
    fill_dropout();
    fma_rows(parts.left, parts.right, queries(p.query), keys(p.key, seen), p.head_dim, s);
    const ScoreLine<Acc> lines[2] = {query_line(p, seq, head, line_query(0)),
                                     query_line(p, seq, head, line_query(1))};
    scores_of(p, lines, first_key(), p.bias_column, s, [&](int n, int e, Acc tanh) {
      parts.weights[weight_place(e / 2, 8 * n + e % 2)] = tanh;
    });
    Acc lse_log2[2];
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int i = line_query(line);
      const int64_t place = p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i);
      lse_log2[line] = i < seq.q_len ? ldg(p.lse_log2 + place) : -minus_infinity<Acc>();
    }
    each_score<kN>([&](int n, int e, int line, int) {
      s[n][e] = exp2_of(fma(s[n][e], Acc(kLog2E), -lse_log2[line]));
    });
  }
  // From probabilities to the derivatives by the scores.
  TILEWRIGHT_DEVICE void derivatives(IntRange seen, Acc (&s)[kN][4]) const {
    Acc dp[kN][4] = {};
    fma_rows(parts.left, parts.right, queries(p.grad_out), keys(p.value, seen), p.value_dim, dp);
    Acc delta[2];
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int i = line_query(line);
      const int64_t place = p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i);
      delta[line] = i < seq.q_len ? ldg(p.delta + place) : Acc(0);
    }
    each_score<kN>([&](int n, int e, int line, int column) {
      // A hidden key may hold anything.
      s[n][e] = s[n][e] == 0 ? Acc(0) : s[n][e] * (dp[n][e] * kept(line, column) - delta[line]);
    });
  }
  // From those to the derivatives by the products, of which only the scale is missing.
  TILEWRIGHT_DEVICE void uncap(Acc (&ds)[kN][4]) const {
    if (!(p.softcap > 0)) return;
    each_score<kN>([&](int n, int e, int line, int column) {
      const Acc tanh = parts.weights[weight_place(line, column)];
      ds[n][e] *= 1 - tanh * tanh;
    });
  }
  TILEWRIGHT_DEVICE void keep_weights(const Acc (&values)[kN][4]) const {
    each_score<kN>([&](int n, int e, int line, int column) {
      parts.weights[weight_place(line, column)] = values[n][e];
    });
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
