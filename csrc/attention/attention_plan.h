// How the forward spreads over a GPU when there are few queries, as in decoding: heads of a group
// share a tile, and the keys are split among blocks.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "tilewright/attention/attention_host.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// In how many parts the keys of each block are walked: more than one where the blocks leave GPUs
// idle and there are keys enough; the fewest that fill the last wave of blocks almost as well as
// any. `places`: for blocks that run at a time.
inline int attention_splits(int64_t blocks, int64_t key_tiles, int64_t places) {
  constexpr int64_t kMostSplits = 64, kFewTiles = 4;
  if (10 * blocks >= 8 * places || key_tiles <= kFewTiles) return 1;
  const auto filled = [&](int64_t splits) {
    const double waves = double(blocks * splits) / double(places);
    return waves / std::ceil(waves);
  };
  // Some numbers of splits leave one without keys.
  const auto useful = [&](int64_t splits) {
    return ceil_div(key_tiles, ceil_div(key_tiles, splits)) == splits;
  };
  const int64_t most = std::min(key_tiles, kMostSplits);
  double best = 0;
  for (int64_t splits = 1; splits <= most; ++splits) {
    if (useful(splits)) best = std::max(best, filled(splits));
  }
  int64_t splits = 1;
  while (!useful(splits) || filled(splits) < 0.85 * best) ++splits;
  return int(splits);
}

// The memory of what the parts found, to be held until the launches are made.
struct SplitRoom {
  at::Tensor out, lse;
};

// Decides by shapes alone, so that the same call has the same bits in every run.
template <class T>
SplitRoom plan_forward(AttentionParams<T>& p, const at::Tensor& query) {
  using Acc = accumulate_t<T>;
  // A multiprocessor has room for two blocks (attention_tiles.h), and needs both to hide latency.
  constexpr int kPlaces = 2;
  // With more queries than this the kernel without options has the better tiles: it is left where
  // it would fill less than a quarter of the GPU.
  constexpr int kFewQueries = 32, kPlainQueries = 128;
  SplitRoom room;
  const int64_t places = int64_t(kPlaces) * multiprocessors();
  if (p.q_len <= kFewQueries) {
    p.packs_group = p.group > 1;
  } else if (4 * ceil_div(p.q_len, kPlainQueries) * p.batch * p.heads > places) {
    return room;
  }
  if (p.cu_q) return room;
  const int64_t rows = int64_t(p.q_len) * (p.packs_group ? p.group : 1);
  const int64_t blocks =
      ceil_div(rows, kTileQueries) * p.batch * (p.packs_group ? p.kv_heads() : p.heads);
  p.splits = attention_splits(blocks, ceil_div(p.k_len, kTileKeys), places);
  if (p.splits == 1) return room;
  const auto options = query.options().dtype(accumulate_dtype(query.scalar_type()));
  const int64_t parts = int64_t(p.splits) * p.batch * p.heads * p.q_len;
  room.out = at::empty({parts * p.value_dim}, options);
  room.lse = at::empty({parts}, options);
  p.partial_out = mutable_data<Acc>(room.out);
  p.partial_lse = mutable_data<Acc>(room.lse);
  return room;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
