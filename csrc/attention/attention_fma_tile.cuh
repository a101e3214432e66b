// Probabilities and their derivatives of one tile of queries and keys, for the backward's kernels.
#pragma once
#include "tilewright/attention/attention_fma.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T, bool kTf32 = false>
struct FmaTile {
  using Acc = accumulate_t<T>;
  static constexpr int kN = kTileKeys / 8;

  const AttentionParams<T>& p;
  const FmaParts<T, kTf32>& parts;
  const AttentionSequence& seq;
  int head, query0, key0;

  TILEWRIGHT_DEVICE int line_query(int line) const {
    return query0 + int(threadIdx.x / 32) * 16 + int(threadIdx.x % 32) / 4 + 8 * line;
  }
  TILEWRIGHT_DEVICE int first_key() const { return key0 + int(threadIdx.x % 4) * 2; }
  // Queries that see nothing may hold anything: they are not touched.
  TILEWRIGHT_DEVICE auto queries(const HeadRows<const T>& rows) const {
    return [this, &rows](int r) {
      const int i = query0 + r;
      const int64_t place = p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i);
      return i < seq.q_len && ldg(p.lse_log2 + place) != -minus_infinity<Acc>()
                 ? query_row(p, rows, seq, head, i)
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
    parts.multiply_rows(queries(p.query), keys(p.key, seen), p.head_dim, s);
    const ScoreLine<Acc> lines[2] = {query_line(p, seq, head, line_query(0)),
                                     query_line(p, seq, head, line_query(1))};
    scores_of(p, lines, first_key(), p.bias_column, s, [&](int n, int e, Acc tanh) {
      parts.weights[parts.weight_place(e / 2, 8 * n + e % 2)] = tanh;
    });
    Acc lse_log2[2];
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int i = line_query(line);
      const int64_t place = p.lse_at(int(seq.tensor_batch(p.cu_q)), head, seq.q_row + i);
      lse_log2[line] = i < seq.q_len ? ldg(p.lse_log2 + place) : -minus_infinity<Acc>();
    }
    each_score<kN>([&](int n, int e, int line, int) {
      s[n][e] = probability_of<true>(s[n][e], Acc(1), lse_log2[line]);
    });
  }
  // From probabilities to the derivatives by the scores.
  TILEWRIGHT_DEVICE void derivatives(IntRange seen, Acc (&s)[kN][4]) const {
    Acc dp[kN][4] = {};
    parts.multiply_rows(queries(p.grad_out), keys(p.value, seen), p.value_dim, dp);
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
      const Acc tanh = parts.weights[parts.weight_place(line, column)];
      // A hidden key's tanh may be NaN.
      ds[n][e] = ds[n][e] == 0 ? Acc(0) : ds[n][e] * (1 - tanh * tanh);
    });
  }
  TILEWRIGHT_DEVICE void keep_weights(const Acc (&values)[kN][4]) const {
    each_score<kN>([&](int n, int e, int line, int column) {
      parts.weights[parts.weight_place(line, column)] = parts.rounded(values[n][e]);
    });
  }
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
