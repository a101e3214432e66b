// Which rows and columns a tree draws: by Philox, so that a draw depends on seed, tree and place
// alone.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "tilewright/trees/tree_row_draw.h"

namespace tilewright {

// A share of the columns `from`, at least one of them, ascending. `place` tells draws of one kind
// and tree apart.
inline std::vector<int32_t> draw_columns(const std::vector<int32_t>& from, double share,
                                         TreeDraw draw, uint32_t place, uint32_t tree,
                                         uint64_t seed) {
  if (share >= 1) return from;
  const size_t count = std::max<size_t>(size_t(double(from.size()) * share), 1);
  std::vector<std::pair<uint32_t, int32_t>> keyed;
  for (const int32_t f : from) {
    keyed.push_back({philox(uint32_t(f), place, uint32_t(draw), tree, seed).word[0], f});
  }
  std::nth_element(keyed.begin(), keyed.begin() + int64_t(count) - 1, keyed.end());
  std::vector<int32_t> out;
  for (size_t i = 0; i < count; ++i) out.push_back(keyed[i].second);
  std::sort(out.begin(), out.end());
  return out;
}

// Appends those rows of [begin, end) that are drawn; begin is a multiple of 4.
inline void draw_rows(int64_t begin, int64_t end, double share, uint32_t round, uint64_t seed,
                      std::vector<int32_t>& out) {
  for (int64_t row = begin; row < end; row += 4) {
    const Philox random = tree_row_words(row / 4, round, seed);
    for (int64_t i = row; i < std::min(row + 4, end); ++i) {
      if (is_row_drawn(random.word[i - row], share)) out.push_back(int32_t(i));
    }
  }
}

}  // namespace tilewright
