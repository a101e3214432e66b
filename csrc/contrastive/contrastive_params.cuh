// What the kernels of contrastive_lse are given. A block owns rows of one side, its lines, and
// walks those of the other side: queries among keys, keys among queries, or views among themselves.
#pragma once
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
struct ContrastiveParams {
  using Acc = accumulate_t<T>;

  const T *lines, *others;  // (line_count, depth), (other_count, depth)
  int line_count, other_count, depth;
  bool diagonal;  // no line meets the others of its own group of exclude_count rows
  // Of queries, the first of the keys that each has no part in, or -1: of the lines or of the
  // others.
  const int64_t *line_exclude, *other_exclude;
  int64_t exclude_count;
  Acc factor;  // scale * log2(e)
  bool tf32;   // products of float32 on tensor cores
  int splits;  // blocks that share the walk of a tile of lines

  Acc* lse;  // forward: (splits, line_count)

  // Backward. Log-sum-exps in powers of 2 (+inf where there is none) and their gradients, of the
  // side that has them; sums of views are of both.
  const Acc *line_lse, *line_grad, *other_lse, *other_grad;
  Acc most_exponent;  // of 2^(score - log-sum-exp): 0, or what the log-sum-exps are short of
  Acc grad_scale;
  const Acc* grad_unit;  // what the gradients were divided by; null: 1
  T* grad;               // (line_count, depth)
  Acc* partial_grad;     // of splits > 1: (splits, line_count, depth)
};

// Rows [begin, end).
struct RowRange {
  int begin, end;
};

// What a query that excludes from `first` on has no part in, of `keys` keys. Nobody has checked it.
TILEWRIGHT_DEVICE RowRange excluded_keys(int64_t first, int64_t count, int keys) {
  if (first == -1 || first >= keys) return {0, 0};
  if (first < 0) return {0, int(max_of(min_of(first + count, int64_t(keys)), int64_t(0)))};
  return {int(first), int(first + min_of(count, keys - first))};
}

// The others that line i does not meet.
template <class T>
TILEWRIGHT_DEVICE RowRange hidden_from(const ContrastiveParams<T>& p, int i) {
  if (p.diagonal) {
    const int size = int(min_of(p.exclude_count, int64_t(1) << 30));  // there are fewer lines
    return excluded_keys(i / size * size, size, p.other_count);
  }
  if (!p.line_exclude || i >= p.line_count) return {0, 0};
  return excluded_keys(ldg(p.line_exclude + i), p.exclude_count, p.other_count);
}

// A block's share of the walk over the others, in steps of kStep rows.
template <int kStep, class T>
TILEWRIGHT_DEVICE RowRange share_of(const ContrastiveParams<T>& p, int split) {
  const int steps = int(ceil_div(p.other_count, kStep)), share = int(ceil_div(steps, p.splits));
  const int begin = min_of(split * share, steps), end = min_of(begin + share, steps);
  return {begin * kStep, min_of(int64_t(end) * kStep, int64_t(p.other_count))};
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
