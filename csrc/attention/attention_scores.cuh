// From products to scores and probabilities, on the registers of a tile, whatever made the
// products: a warp holds 16 lines of a tile, lane (g, t) = (lane / 4, lane % 4) the lines g and g +
// 8, and of each group n of 8 columns the columns 8n + 2t and 8n + 2t + 1: the layout of mma's
// results.
//
// Lines are queries and columns keys, or the other way round: the rules are symmetric.
#pragma once
#include "tilewright/attention/attention_params.cuh"
#include "tilewright/core/cuda/exp2.h"
#include "tilewright/core/cuda/reduce.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

TILEWRIGHT_DEVICE float log2_of(float x) { return ::log2f(x); }
TILEWRIGHT_DEVICE double log2_of(double x) { return ::log2(x); }
TILEWRIGHT_DEVICE float tanh_of(float x) { return ::tanhf(x); }
TILEWRIGHT_DEVICE double tanh_of(double x) { return ::tanh(x); }
TILEWRIGHT_DEVICE float magnitude(float x) { return ::fabsf(x); }
TILEWRIGHT_DEVICE double magnitude(double x) { return ::fabs(x); }

template <class Acc>
TILEWRIGHT_DEVICE Acc minus_infinity() {
  return -Acc(HUGE_VAL);
}

// A line's part in the rules. With lines of queries: the keys it sees, i + o, the place of
// bias[b][h][i][0]. With lines of keys: the queries that see it, j - o, bias[b][h][0][j].
template <class Acc>
struct ScoreLine {
  int begin, end, center;
  int64_t bias;
  Acc slope;
};

template <class T>
TILEWRIGHT_DEVICE accumulate_t<T> slope_of(const AttentionParams<T>& p, int batch, int head) {
  return p.slopes ? ldg(p.slopes + batch * p.slopes_batch + head) : accumulate_t<T>(0);
}

template <class T>
TILEWRIGHT_DEVICE ScoreLine<accumulate_t<T>> query_line(const AttentionParams<T>& p,
                                                        const AttentionSequence& seq, int head,
                                                        int i) {
  const IntRange keys = keys_of(p, seq, i);
  return {keys.begin, keys.end, i + int(p.window.offset(seq.q_len, seq.k_len)),
          seq.batch * p.bias_batch + head * p.bias_head + i * p.bias_row,
          slope_of(p, seq.batch, head)};
}
template <class T>
TILEWRIGHT_DEVICE ScoreLine<accumulate_t<T>> key_line(const AttentionParams<T>& p,
                                                      const AttentionSequence& seq, int head,
                                                      int j) {
  const IntRange queries = queries_of(p, seq, j);
  return {queries.begin, queries.end, j - int(p.window.offset(seq.q_len, seq.k_len)),
          seq.batch * p.bias_batch + head * p.bias_head + j * p.bias_column,
          slope_of(p, seq.batch, head)};
}

// Visits the N x 4 elements of a lane with their line (0: g, 1: g + 8) and column from the lane's
// first.
template <int N, class Body>
TILEWRIGHT_DEVICE void each_score(const Body& body) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) body(n, e, e / 2, 8 * n + e % 2);
  }
}

template <class T>
TILEWRIGHT_DEVICE accumulate_t<T> bias_at(const AttentionParams<T>& p, int64_t place) {
  using Acc = accumulate_t<T>;
  switch (p.bias_kind) {
    case BiasKind::kBool:
      return ldg(static_cast<const uint8_t*>(p.bias) + place) ? Acc(0) : minus_infinity<Acc>();
    case BiasKind::kInput: return to_accumulate(ldg(static_cast<const T*>(p.bias) + place));
    default: return Acc(ldg(static_cast<const float*>(p.bias) + place));
  }
}

// The bias of a tile, added where a score is visible.
template <class B, class Acc, int N>
TILEWRIGHT_DEVICE void add_bias(const B* bias, const ScoreLine<Acc> (&lines)[2], int first,
                                int64_t stride, Acc (&s)[N][4]) {
  each_score<N>([&](int n, int e, int line, int column) {
    const int at = first + column;
    if (at < lines[line].begin || at >= lines[line].end) return;
    const B value = ldg(bias + lines[line].bias + at * stride);
    if constexpr (std::is_same_v<B, uint8_t>) {
      if (!value) s[n][e] = minus_infinity<Acc>();
    } else {
      const Acc added = Acc(to_accumulate(value));
      // What it hides may be NaN.
      s[n][e] = added == minus_infinity<Acc>() ? added : s[n][e] + bias_log2(added);
    }
  });
}

// Products become scores times log2(e), -inf where hidden. `first` is the query or key of the
// lane's first column, `stride` the bias's from column to column. With a softcap, keep(n, e, tanh)
// is given tanh(s / softcap).
template <class T, int N, class Keep>
TILEWRIGHT_DEVICE void scores_of(const AttentionParams<T>& p,
                                 const ScoreLine<accumulate_t<T>> (&lines)[2], int first,
                                 int64_t stride, accumulate_t<T> (&s)[N][4], const Keep& keep) {
  using Acc = accumulate_t<T>;
  if (p.softcap > 0) {
    const Acc inner = p.scale / p.softcap, outer = p.softcap * Acc(kLog2E);
    each_score<N>([&](int n, int e, int, int) {
      const Acc tanh = tanh_of(s[n][e] * inner);
      keep(n, e, tanh);
      s[n][e] = outer * tanh;
    });
  } else {
    const Acc factor = p.scale * Acc(kLog2E);
    each_score<N>([&](int n, int e, int, int) { s[n][e] *= factor; });
  }
  if (p.slopes) {
    const Acc slopes[2] = {lines[0].slope * Acc(kLog2E), lines[1].slope * Acc(kLog2E)};
    each_score<N>([&](int n, int e, int line, int column) {
      s[n][e] -= slopes[line] * Acc(abs(lines[line].center - first - column));
    });
  }
  switch (p.bias_kind) {
    case BiasKind::kNone: break;
    case BiasKind::kBool:
      add_bias(static_cast<const uint8_t*>(p.bias), lines, first, stride, s);
      break;
    case BiasKind::kInput: add_bias(static_cast<const T*>(p.bias), lines, first, stride, s); break;
    case BiasKind::kFloat:
      add_bias(static_cast<const float*>(p.bias), lines, first, stride, s);
      break;
  }
  each_score<N>([&](int n, int e, int line, int column) {
    const int at = first + column;
    const bool visible = at >= lines[line].begin && at < lines[line].end;
    if (!visible) s[n][e] = minus_infinity<Acc>();
  });
}

// Scores outside of the ranges of their lines become -inf.
template <class Acc, int N>
TILEWRIGHT_DEVICE void hide_scores(const IntRange (&seen)[2], int first, Acc (&s)[N][4]) {
  each_score<N>([&](int n, int e, int line, int column) {
    const int at = first + column;
    if (at < seen[line].begin || at >= seen[line].end) s[n][e] = minus_infinity<Acc>();
  });
}

// The dropout of a tile: bit w of keep[row][c] is that of key 16w + c of the tile.
struct DropoutTile {
  uint8_t* keep;  // (queries, 16)

  // All threads of the block together; key0 is a multiple of 64. place(row, head, query) says
  // whose dropout a row of the tile has.
  template <class T, class Place>
  TILEWRIGHT_DEVICE void fill(const AttentionParams<T>& p, int rows, int key0,
                              const Place& place) const {
    const AttentionDropout dropout{uint64_t(ldg(p.rng_state)), uint32_t(ldg(p.rng_state + 1)),
                                   p.dropout_threshold};
    for (int c = threadIdx.x; c < rows * 16; c += kAttentionThreads) {
      int64_t head;
      int query;
      place(c / 16, head, query);
      const Philox bits = dropout.words(head, query, AttentionDropout::counter_of(key0 + c % 16));
      int kept = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w) kept |= (bits.word[w] >= dropout.threshold) << w;
      keep[c] = uint8_t(kept);
    }
  }
  TILEWRIGHT_DEVICE bool keeps(int row, int key) const {
    return keep[row * 16 + key % 16] >> (key / 16 % 4) & 1;
  }
};

// Softmax over the columns of a line as they come by: the largest score so far, in units of log 2,
// and this lane's share of the sum of 2^(score - largest).
template <class Acc>
struct RunningSoftmax {
  Acc largest[2], sum[2];

  TILEWRIGHT_DEVICE void start() {
    largest[0] = largest[1] = minus_infinity<Acc>();
    sum[0] = sum[1] = 0;
  }
  // Scores in units of `unit` log 2 become probabilities; returns in `rescale` what earlier sums,
  // and what they weigh, shrink by: exactly 1 where the largest stays.
  template <int N>
  TILEWRIGHT_DEVICE void update(Acc (&s)[N][4], Acc unit, Acc (&rescale)[2]) {
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      Acc top = s[0][2 * line];
#pragma unroll
      for (int n = 0; n < N; ++n) top = max(top, max(s[n][2 * line], s[n][2 * line + 1]));
      top = max(top, __shfl_xor_sync(0xffffffff, top, 1));
      top = max(top, __shfl_xor_sync(0xffffffff, top, 2));
      // The products are rounded alike: the greatest score has the greatest product.
      const Acc now = max(largest[line], top * unit);
      // A line that has seen nothing: all its probabilities are 2^(-inf - 0).
      const Acc base = now == minus_infinity<Acc>() ? Acc(0) : now;
      rescale[line] = exp2_of(largest[line] - base);
      largest[line] = now;
      Acc total = 0;
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int e = 2 * line; e < 2 * line + 2; ++e) {
          s[n][e] = exp2_of(Acc(fma(s[n][e], unit, -base)));
          total += s[n][e];
        }
      }
      sum[line] = sum[line] * rescale[line] + total;
    }
  }
};

// exp(score - lse), of a score in units of `unit` log 2. float32 has no digits of lse left where
// scores are beyond 1e7, as a mask of -1e9 makes them: no probability is above 1, NaN stays NaN.
template <bool kClamps, class Acc>
TILEWRIGHT_DEVICE Acc probability_of(Acc score, Acc unit, Acc lse_log2) {
  const Acc exponent = fma(score, unit, -lse_log2);
  return exp2_of(kClamps && exponent > 0 ? Acc(0) : exponent);
}

// What a line ends with: lse, and what the weighted sum is to be multiplied by. The largest score
// and the sink (-inf where there is none) are in units of log 2.
template <class Acc>
struct LineEnd {
  Acc lse, factor;
};
template <class Acc>
TILEWRIGHT_DEVICE LineEnd<Acc> finish_line(Acc largest_log2, Acc sum, Acc sink) {
  sum += __shfl_xor_sync(0xffffffff, sum, 1);
  sum += __shfl_xor_sync(0xffffffff, sum, 2);
  Acc shrink = 1;
  if (sink != minus_infinity<Acc>()) {
    const Acc top = max(largest_log2, sink);
    shrink = exp2_of(largest_log2 - top);
    sum = sum * shrink + exp2_of(sink - top);
    largest_log2 = top;
  }
  if (sum == 0) return {minus_infinity<Acc>(), Acc(0)};
  return {(largest_log2 + log2_of(sum)) * Acc(kLn2), shrink / sum};
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
