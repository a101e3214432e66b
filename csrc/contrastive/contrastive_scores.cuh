// From products to scores and to the weights of gradients, on the registers of a tile, which lie as
// attention_scores.cuh says, whatever made the products.
#pragma once
#include "tilewright/attention/attention_rows.cuh"
#include "tilewright/contrastive/contrastive_params.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// What a lane knows of its two lines.
template <class Acc>
struct ContrastiveLines {
  int index[2];
  RowRange hidden[2];
  Acc lse[2], grad[2];  // of the backward pass

  // `first`: the lane's first line, 8 before its second.
  template <class T>
  TILEWRIGHT_DEVICE void find(const ContrastiveParams<T>& p, int first, bool backward) {
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int i = index[line] = first + 8 * line;
      hidden[line] = hidden_from(p, i);
      const bool has_sums = backward && p.line_lse && i < p.line_count;
      lse[line] = has_sums ? ldg(p.line_lse + i) : -minus_infinity<Acc>();
      grad[line] = has_sums ? ldg(p.line_grad + i) : Acc(0);
    }
  }
};

// What a step's others bring along, `lse` and `grad` from the lane's first column on; null where
// they do not.
template <class Acc>
struct ContrastiveOthers {
  const RowRange* hidden;  // the lines that they do not meet
  const Acc *lse, *grad;
};

// Products become scores in units of what is returned, -inf where a line does not meet the other.
// `other_hidden`: of each of the step's others, or null. All lanes together.
template <class T, int N>
TILEWRIGHT_DEVICE accumulate_t<T> contrastive_scores(const ContrastiveParams<T>& p,
                                                     const ContrastiveLines<accumulate_t<T>>& lines,
                                                     RowRange step, const RowRange* other_hidden,
                                                     accumulate_t<T> (&s)[N][4]) {
  using Acc = accumulate_t<T>;
  const bool scaled = !(p.factor > 0);  // the largest product is not the largest score
  if (scaled) each_score<N>([&](int n, int e, int, int) { s[n][e] *= p.factor; });
  bool hides = step.end > p.other_count;
#pragma unroll
  for (int line = 0; line < 2; ++line) {
    hides = hides || (lines.hidden[line].begin < step.end && lines.hidden[line].end > step.begin);
  }
  if (other_hidden) {  // each lane looks at some of the others, for the lines of all lanes
    const int lane = int(threadIdx.x % 32), line0 = lines.index[0] - lane / 4;
    for (int j = lane; j < step.end - step.begin; j += 32) {
      const RowRange range = other_hidden[j];
      hides = hides || (range.begin < line0 + 16 && range.end > line0);
    }
  }
  if (__any_sync(0xffffffff, hides)) {
    const int from = int(threadIdx.x % 4) * 2, first = step.begin + from;
    each_score<N>([&](int n, int e, int line, int column) {
      const int at = first + column, i = lines.index[line];
      bool hidden =
          at >= p.other_count || (at >= lines.hidden[line].begin && at < lines.hidden[line].end);
      if (other_hidden) {
        const RowRange range = other_hidden[from + column];
        hidden = hidden || (i >= range.begin && i < range.end);
      }
      if (hidden) s[n][e] = minus_infinity<Acc>();
    });
  }
  return scaled ? Acc(1) : p.factor;
}

// 2^(score - lse), at most what exact arithmetic could make it: float32 has no digits of large
// scores left. NaN stays NaN.
template <class Acc>
TILEWRIGHT_DEVICE Acc contrastive_share(Acc score, Acc unit, Acc lse, Acc most) {
  const Acc exponent = fma(score, unit, -lse);
  return exp2_of(exponent > most ? most : exponent);
}

// Scores become the derivatives by them: of the sums over others for each line, and of those over
// lines for each other.
template <class T, int N>
TILEWRIGHT_DEVICE void contrastive_weights(const ContrastiveParams<T>& p,
                                           const ContrastiveLines<accumulate_t<T>>& lines,
                                           const ContrastiveOthers<accumulate_t<T>>& others,
                                           accumulate_t<T> unit, accumulate_t<T> (&s)[N][4]) {
  using Acc = accumulate_t<T>;
  each_score<N>([&](int n, int e, int line, int column) {
    Acc weight = 0;
    if (p.line_lse) {
      weight =
          lines.grad[line] * contrastive_share(s[n][e], unit, lines.lse[line], p.most_exponent);
    }
    if (others.lse) {
      weight = fma(others.grad[column],
                   contrastive_share(s[n][e], unit, others.lse[column], p.most_exponent), weight);
    }
    s[n][e] = weight;
  });
}

// Scores beyond the digits of Acc leave a rounding of whole powers of 2 between a maximum and its
// own score: sums of powers below it are kept finite. NaN stays NaN.
template <class Acc>
TILEWRIGHT_DEVICE void bound_sums(RunningSoftmax<Acc>& softmax) {
  const Acc most = Acc(int64_t(1) << 62);
#pragma unroll
  for (int line = 0; line < 2; ++line) {
    if (softmax.sum[line] > most) softmax.sum[line] = most;
  }
}

// Log-sum-exps of the lane's lines over the others that the block has met.
template <class T>
TILEWRIGHT_DEVICE void store_sums(const ContrastiveParams<T>& p, int split,
                                  const ContrastiveLines<accumulate_t<T>>& lines,
                                  RunningSoftmax<accumulate_t<T>>& softmax) {
  using Acc = accumulate_t<T>;
#pragma unroll
  for (int line = 0; line < 2; ++line) {
    const LineEnd<Acc> end =
        finish_line(softmax.largest[line], softmax.sum[line], minus_infinity<Acc>());
    if (threadIdx.x % 4 != 0 || lines.index[line] >= p.line_count) continue;
    const Acc least = softmax.largest[line] * Acc(kLn2);  // what the largest score alone adds up to
    p.lse[int64_t(split) * p.line_count + lines.index[line]] = end.lse < least ? least : end.lse;
  }
}

// A lane's part of the gradients of its lines: columns from column0 on.
template <class T, int N>
TILEWRIGHT_DEVICE void store_grads(const ContrastiveParams<T>& p, int split, int column0,
                                   const ContrastiveLines<accumulate_t<T>>& lines,
                                   const accumulate_t<T> (&sums)[N][4]) {
  using Acc = accumulate_t<T>;
  const Acc factor = p.grad_unit ? p.grad_scale * ldg(p.grad_unit) : p.grad_scale;
  const int columns = p.depth - column0;
  const bool pairs = p.depth % 2 == 0;
#pragma unroll
  for (int line = 0; line < 2; ++line) {
    const int i = lines.index[line];
    if (i >= p.line_count) continue;
    if (p.splits > 1) {
      const int64_t row = int64_t(split) * p.line_count + i;
      store_line(p.partial_grad + row * p.depth + column0, columns, pairs, line, factor, sums);
    } else {
      store_line(p.grad + int64_t(i) * p.depth + column0, columns, pairs, line, factor, sums);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
