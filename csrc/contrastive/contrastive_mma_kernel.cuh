// The tensor cores' kernels of contrastive_lse, for 16-bit rows of up to 256 columns: attention's
// tiles without values. A block keeps a tile of lines in shared memory; while it multiplies a step
// of others the next one arrives.
#pragma once
#include "tilewright/attention/attention_mma.cuh"
#include "tilewright/contrastive/contrastive_scores.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// kGroups: of 16 lines, that a warp owns; kStep: rows of the others that a step brings in.
template <class T, int kColumns, int kGroups, int kStep>
struct ContrastiveTile {
  static constexpr int kLines = 16 * kAttentionWarps * kGroups;
  T *lines, *others;  // (kLines, kColumns), (2, kStep, kColumns)
  TILEWRIGHT_HD ContrastiveTile(SharedMemory& shared)
      : lines(shared.take<T>(kLines * kColumns, 128)),
        others(shared.take<T>(2 * kStep * kColumns, 128)) {}

  TILEWRIGHT_DEVICE void load_lines(const ContrastiveParams<T>& p, int first) const {
    load_tile<kLines, kColumns, false>(
        lines, {p.lines + int64_t(first) * p.depth, p.depth, 0, p.line_count - first}, p.depth,
        true, p.lines);
  }
  TILEWRIGHT_DEVICE void load_others(const ContrastiveParams<T>& p, int first, int half) const {
    load_tile<kStep, kColumns, false>(
        others + half * kStep * kColumns,
        {p.others + int64_t(first) * p.depth, p.depth, 0, p.other_count - first}, p.depth, true,
        p.others);
  }
};

// Grid: tiles of lines, then splits.
template <class T, int kColumns, int kGroups, int kStep>
__global__ void contrastive_forward_kernel(ContrastiveParams<T> p, int tiles) {
  using Tile = ContrastiveTile<T, kColumns, kGroups, kStep>;
  BlockCursor cursor;
  const int line0 = cursor.next(tiles) * Tile::kLines, split = cursor.next(p.splits);
  SharedMemory shared;
  const Tile tile(shared);
  const RowRange walk = share_of<kStep>(p, split);
  tile.load_lines(p, line0);
  if (walk.begin < walk.end) tile.load_others(p, walk.begin, 0);
  commit_copies();

  const int warp_line = int(threadIdx.x / 32) * 16 * kGroups;
  ContrastiveLines<float> lines[kGroups];
  RunningSoftmax<float> softmax[kGroups];
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
    lines[m].find(p, line0 + warp_line + 16 * m + int(threadIdx.x % 32) / 4, false);
    softmax[m].start();
  }
  int half = 0;
  for (int first = walk.begin; first < walk.end; first += kStep, half ^= 1) {
    wait_copies<0>();
    __syncthreads();
    if (first + kStep < walk.end) tile.load_others(p, first + kStep, half ^ 1);
    commit_copies();
    float s[kGroups][kStep / 8][4] = {};
    multiply_rows<kColumns>(tile.lines, warp_line, tile.others + half * kStep * kColumns, 0, s);
#pragma unroll
    for (int m = 0; m < kGroups; ++m) {
      const float unit = contrastive_scores(p, lines[m], {first, first + kStep}, nullptr, s[m]);
      float rescale[2];
      softmax[m].update(s[m], unit, rescale);
      bound_sums(softmax[m]);
    }
  }
  wait_copies<0>();
#pragma unroll
  for (int m = 0; m < kGroups; ++m) store_sums(p, split, lines[m], softmax[m]);
}

// What the others of two steps bring along, besides their rows.
template <int kStep>
struct ContrastiveOtherSums {
  float *lse, *grad;  // (2, kStep)
  RowRange* hidden;   // (2, kStep): lines that they do not meet
  TILEWRIGHT_HD ContrastiveOtherSums(SharedMemory& shared)
      : lse(shared.take<float>(2 * kStep)),
        grad(shared.take<float>(2 * kStep)),
        hidden(shared.take<RowRange>(2 * kStep)) {}

  template <class T>
  TILEWRIGHT_DEVICE void load(const ContrastiveParams<T>& p, int first, int half) const {
    if (int(threadIdx.x) >= kStep) return;
    const int j = first + int(threadIdx.x), to = half * kStep + int(threadIdx.x);
    const bool inside = j < p.other_count;
    if (p.other_lse) {
      copy_async<4>(lse + to, inside ? p.other_lse + j : p.other_lse, inside);
      copy_async<4>(grad + to, inside ? p.other_grad + j : p.other_grad, inside);
    }
    if (p.other_exclude) {
      hidden[to] = inside ? excluded_keys(ldg(p.other_exclude + j), p.exclude_count, p.line_count)
                          : RowRange{0, 0};
    }
  }
  template <class T>
  TILEWRIGHT_DEVICE ContrastiveOthers<float> of(const ContrastiveParams<T>& p, int half) const {
    const int from = half * kStep + int(threadIdx.x % 4) * 2;
    return {p.other_exclude ? hidden + half * kStep : nullptr, p.other_lse ? lse + from : nullptr,
            grad + from};
  }
};

template <class T, int kColumns, int kGroups, int kStep>
struct ContrastiveGradParts {
  ContrastiveTile<T, kColumns, kGroups, kStep> tile;
  ContrastiveOtherSums<kStep> sums;
  TILEWRIGHT_HD ContrastiveGradParts(SharedMemory& shared) : tile(shared), sums(shared) {}
};

// Grid: tiles of lines, then splits.
template <class T, int kColumns, int kGroups, int kStep>
__global__ void contrastive_grad_kernel(ContrastiveParams<T> p, int tiles) {
  using Parts = ContrastiveGradParts<T, kColumns, kGroups, kStep>;
  constexpr int kLines = ContrastiveTile<T, kColumns, kGroups, kStep>::kLines;
  BlockCursor cursor;
  const int line0 = cursor.next(tiles) * kLines, split = cursor.next(p.splits);
  SharedMemory shared;
  const Parts parts(shared);
  const RowRange walk = share_of<kStep>(p, split);
  const auto load_step = [&](int first, int half) {
    parts.tile.load_others(p, first, half);
    parts.sums.load(p, first, half);
  };
  parts.tile.load_lines(p, line0);
  if (walk.begin < walk.end) load_step(walk.begin, 0);
  commit_copies();

  const int warp_line = int(threadIdx.x / 32) * 16 * kGroups;
  ContrastiveLines<float> lines[kGroups];
#pragma unroll
  for (int m = 0; m < kGroups; ++m) {
    lines[m].find(p, line0 + warp_line + 16 * m + int(threadIdx.x % 32) / 4, true);
  }
  float grads[kGroups][kColumns / 8][4] = {};
  int half = 0;
  for (int first = walk.begin; first < walk.end; first += kStep, half ^= 1) {
    wait_copies<0>();
    __syncthreads();
    if (first + kStep < walk.end) load_step(first + kStep, half ^ 1);
    commit_copies();
    const T* others = parts.tile.others + half * kStep * kColumns;
    const ContrastiveOthers<float> sums = parts.sums.of(p, half);
    float s[kGroups][kStep / 8][4] = {};
    multiply_rows<kColumns>(parts.tile.lines, warp_line, others, 0, s);
#pragma unroll
    for (int m = 0; m < kGroups; ++m) {
      const RowRange step{first, first + kStep};
      const float unit = contrastive_scores(p, lines[m], step, sums.hidden, s[m]);
      contrastive_weights(p, lines[m], sums, unit, s[m]);
    }
    uint32_t weights[kGroups][kStep / 16][4];
    pack_results<T>(s, weights);
    multiply_columns<kColumns>(weights, others, 0, grads);
  }
  wait_copies<0>();
#pragma unroll
  for (int m = 0; m < kGroups; ++m) store_grads(p, split, 0, lines[m], grads[m]);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
