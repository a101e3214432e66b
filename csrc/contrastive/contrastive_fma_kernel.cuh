// The kernels of contrastive_lse for float64, float32, and 16-bit rows of more than 256 columns,
// whose digits TF32 holds: a few columns of each row at a time, so any number of them.
#pragma once
#include "tilewright/attention/attention_fma.cuh"
#include "tilewright/contrastive/contrastive_scores.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kContrastiveFmaRows = 64;  // lines of a tile, others of a step

// What rows of a tile from `first` on are.
template <class T>
TILEWRIGHT_DEVICE auto contrastive_rows(const T* rows, int count, int depth, int first) {
  return [=](int r) {
    return first + r < count ? rows + int64_t(first + r) * depth : static_cast<const T*>(nullptr);
  };
}

// Grid: tiles of lines, then splits.
template <class T, bool kTf32>
__global__ void contrastive_forward_fma_kernel(ContrastiveParams<T> p, int tiles) {
  using Acc = accumulate_t<T>;
  BlockCursor cursor;
  const int line0 = cursor.next(tiles) * kContrastiveFmaRows, split = cursor.next(p.splits);
  SharedMemory shared;
  const FmaParts<T, kTf32> parts(shared);
  const RowRange walk = share_of<kContrastiveFmaRows>(p, split);
  ContrastiveLines<Acc> lines;
  lines.find(p, line0 + int(threadIdx.x / 32) * 16 + int(threadIdx.x % 32) / 4, false);
  RunningSoftmax<Acc> softmax;
  softmax.start();
  for (int first = walk.begin; first < walk.end; first += kContrastiveFmaRows) {
    Acc s[kContrastiveFmaRows / 8][4] = {};
    parts.multiply_rows(contrastive_rows(p.lines, p.line_count, p.depth, line0),
                        contrastive_rows(p.others, p.other_count, p.depth, first), p.depth, s);
    const Acc unit = contrastive_scores(p, lines, {first, first + kContrastiveFmaRows}, nullptr, s);
    Acc rescale[2];
    softmax.update(s, unit, rescale);
    bound_sums(softmax);
  }
  store_sums(p, split, lines, softmax);
}

// A tile of scores and what the others bring along.
template <class T, bool kTf32>
struct ContrastiveFmaGradParts {
  using Acc = accumulate_t<T>;
  FmaParts<T, kTf32> tile;
  Acc *lse, *grad;   // (kContrastiveFmaRows,)
  RowRange* hidden;  // (kContrastiveFmaRows,): lines that they do not meet
  TILEWRIGHT_HD ContrastiveFmaGradParts(SharedMemory& shared)
      : tile(shared),
        lse(shared.take<Acc>(kContrastiveFmaRows)),
        grad(shared.take<Acc>(kContrastiveFmaRows)),
        hidden(shared.take<RowRange>(kContrastiveFmaRows)) {}

  TILEWRIGHT_DEVICE void load_sums(const ContrastiveParams<T>& p, int first) const {
    if (int(threadIdx.x) >= kContrastiveFmaRows) return;
    const int j = first + int(threadIdx.x);
    const bool inside = j < p.other_count;
    if (p.other_lse) {
      lse[threadIdx.x] = inside ? ldg(p.other_lse + j) : Acc(0);
      grad[threadIdx.x] = inside ? ldg(p.other_grad + j) : Acc(0);
    }
    if (p.other_exclude) {
      hidden[threadIdx.x] =
          inside ? excluded_keys(ldg(p.other_exclude + j), p.exclude_count, p.line_count)
                 : RowRange{0, 0};
    }
  }
};

// Grid: groups of kFmaColumns columns, then tiles of lines and splits.
template <class T, bool kTf32>
__global__ void contrastive_grad_fma_kernel(ContrastiveParams<T> p, int tiles) {
  using Acc = accumulate_t<T>;
  BlockCursor cursor;
  const int column0 = cursor.next(int(ceil_div(p.depth, kFmaColumns<Acc>))) * kFmaColumns<Acc>;
  const int line0 = cursor.next(tiles) * kContrastiveFmaRows, split = cursor.next(p.splits);
  SharedMemory shared;
  const ContrastiveFmaGradParts<T, kTf32> parts(shared);
  const RowRange walk = share_of<kContrastiveFmaRows>(p, split);
  ContrastiveLines<Acc> lines;
  lines.find(p, line0 + int(threadIdx.x / 32) * 16 + int(threadIdx.x % 32) / 4, true);
  const int from = int(threadIdx.x % 4) * 2;
  const ContrastiveOthers<Acc> sums{p.other_exclude ? parts.hidden : nullptr,
                                    p.other_lse ? parts.lse + from : nullptr, parts.grad + from};
  Acc grads[kFmaColumns<Acc> / 8][4] = {};
  for (int first = walk.begin; first < walk.end; first += kContrastiveFmaRows) {
    const auto others = contrastive_rows(p.others, p.other_count, p.depth, first);
    __syncthreads();
    parts.load_sums(p, first);
    parts.tile.stage_columns(column0, p.depth, others);
    Acc s[kContrastiveFmaRows / 8][4] = {};
    parts.tile.multiply_rows(contrastive_rows(p.lines, p.line_count, p.depth, line0), others,
                             p.depth, s);
    const RowRange step{first, first + kContrastiveFmaRows};
    const Acc unit = contrastive_scores(p, lines, step, sums.hidden, s);
    contrastive_weights(p, lines, sums, unit, s);
    each_score<kContrastiveFmaRows / 8>([&](int n, int e, int line, int column) {
      parts.tile.weights[parts.tile.weight_place(line, column)] = parts.tile.rounded(s[n][e]);
    });
    __syncthreads();
    parts.tile.template multiply_columns<false>(grads);
  }
  store_grads(p, split, column0, lines, grads);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
