// Which rows a tree draws: the rule for every machine. A draw depends on seed, round and place
// alone.
#pragma once
#include "tilewright/core/philox.h"

namespace tilewright {
// Kinds of draws.
enum class TreeDraw : uint32_t { kRows, kLevelColumns, kNodeColumns, kTreeColumns };
}  // namespace tilewright

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A word each for the rows 4 * quad to 4 * quad + 3.
TILEWRIGHT_HD Philox tree_row_words(int64_t quad, uint32_t round, uint64_t seed) {
  return philox(uint32_t(quad), 0, uint32_t(TreeDraw::kRows), round, seed);
}
TILEWRIGHT_HD bool is_row_drawn(uint32_t word, double share) {
  return double(word) * 0x1p-32 < share;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
