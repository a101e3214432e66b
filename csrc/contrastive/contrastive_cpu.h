// What the CPU's loops of contrastive_lse are given, and how pairs of blocks become tasks.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/core/log2.h"
#include "tilewright/core/math.h"

namespace tilewright {

inline constexpr int64_t kContrastiveRows = 64;  // of a tile of scores
// Columns of a tile: its packed keys, of the depth that is usual, and its scores stay in cache.
inline int64_t contrastive_width(int64_t depth) {
  return depth <= 256 ? 256 : depth <= 1024 ? 128 : 64;
}

// Below this bound of all scores, in powers of 2, one shift serves them all: what is subtracted
// before they are raised is no maximum of a row but the bound, and nothing vanishes by it.
// Exponents are rounded where they are twice the bound at most, to 2^-19. The gradients' factors
// are at most 4^bound times as large as what they stand for: gradients below 2^79 do not overflow
// by them.
inline constexpr double kMostSharedShift = 24;

// Queries and keys in blocks of one size each; the last may be smaller.
struct ContrastiveBlocks {
  int64_t queries, keys;  // in a block
  int64_t query_blocks, key_blocks;
};

struct ContrastiveCpuParams {
  c10::ScalarType dtype;
  const void *query, *key;  // (N, D), (M, D) of T; the same where self
  int64_t queries, keys, depth;
  bool self;               // keys are the queries
  bool columns;            // sums over queries, for each key, too
  const int64_t* exclude;  // (N,): keys [exclude, exclude + exclude_count) are none of the query's
  int64_t exclude_count;
  bool diagonal;  // nor are those of its own group of exclude_count rows; always with self
  double scale;
  double shift;  // the bound where it serves as the shift of all scores, else infinity
  ContrastiveBlocks blocks;

  // Forward: of each pair of blocks the largest score and the sum of 2^(score - that), in powers of
  // 2, of Acc: (key_blocks, N) and, with columns, (query_blocks, M). Where self, of a pair of
  // blocks both sides are in the first ones.
  void *row_most, *row_sums, *column_most, *column_sums;

  // Backward: log-sum-exps in powers of 2 and their gradients, of Acc: (N,) and (M,).
  const void *row_lse, *row_grad, *column_lse, *column_grad;
  // Gradients, of Acc: (query_copies, N, D), (key_copies, M, D), or null. Query blocks add to the
  // copy of key block % query_copies, and the other way round.
  void *grad_query, *grad_key;
  int64_t query_copies, key_copies;
};

struct ContrastivePair {
  int64_t queries, keys;  // blocks
};

// The pairs [begin, end) of a list, one after the other.
TILEWRIGHT_CPU_KERNEL(contrastive_forward,
                      void(const ContrastiveCpuParams&, const ContrastivePair*, int64_t, int64_t))
TILEWRIGHT_CPU_KERNEL(contrastive_backward,
                      void(const ContrastiveCpuParams&, const ContrastivePair*, int64_t, int64_t))
// Log-sum-exps [begin, end) of Acc from `parts` rows of partial ones.
TILEWRIGHT_CPU_KERNEL(contrastive_merge,
                      void(c10::ScalarType, const void* most, const void* sums, int64_t parts,
                           int64_t count, void* lse, int64_t begin, int64_t end))

}  // namespace tilewright
