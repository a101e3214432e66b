// Rows that a tree draws: a thread four of them, which share a call of Philox.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/trees/tree_row_draw.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct RowMaskParams {
  int64_t rows;
  double share;
  uint32_t round;
  uint64_t seed;
  bool* drawn;  // (rows,)
};

inline __global__ void row_mask_kernel(RowMaskParams p) {
  for (int64_t quad : grid_stride((p.rows + 3) / 4)) {
    const Philox random = tree_row_words(quad, p.round, p.seed);
    for (int i = 0; i < 4; ++i) {
      if (4 * quad + i < p.rows) p.drawn[4 * quad + i] = is_row_drawn(random.word[i], p.share);
    }
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
