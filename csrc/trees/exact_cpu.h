// What the CPU kernels of exact split finding are called with.
#pragma once
#include "tilewright/trees/tree_cpu.h"

namespace tilewright {

// For each feature the values of some rows, ascending, NaN last, and the places where these rows
// stand with the grower. A node has the same entries [begin, end) of all features.
struct SortedColumns {
  const int32_t* places;  // (F, stride)
  const float* values;    // (F, stride)
  int64_t stride;
};
// Entries of one feature to write.
struct SortedOut {
  int32_t* places;
  float* values;
};

// How many of a node's entries are no NaN.
TILEWRIGHT_CPU_KERNEL(exact_present, int64_t(const float* values, int64_t count))

// Entries [begin, begin + count) of a feature to two lists, in order, with the places `map[place]`:
// those below `middle` to `left`, which may begin where the entries do, the others to `right`.
// Returns how many went left. As many entries of either list may be written as there are in all.
TILEWRIGHT_CPU_KERNEL(exact_divide,
                      int64_t(const SortedColumns&, int64_t feature, int64_t begin, int64_t count,
                              const int32_t* map, int32_t middle, SortedOut left, SortedOut right))

// The best split of the features [first, last) of the list `params.features`, between different
// values of the entries [begin, begin + count), whose gradients are pairs[place]; of equal ones the
// first. Its code is the last entry that goes left, of the node's; -1 where only missing values do.
TILEWRIGHT_CPU_KERNEL(exact_best_split, TreeSplit(const TreeSplitParams&, const SortedColumns&,
                                                  const TreeCount* pairs, int64_t begin,
                                                  int64_t count, int64_t first, int64_t last))

}  // namespace tilewright
