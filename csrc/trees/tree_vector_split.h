// The best split of a node whose leaves are vectors, an entry an output: what the CPU kernel is
// called with.
#pragma once
#include "tilewright/trees/tree_cpu.h"

namespace tilewright {

struct TreeVectorSplitParams {
  TreeRegularisation rules;
  bool bounded;  // whether max_delta_step says anything
  int64_t outputs;
  const TreeCount* sums;    // (outputs, F, codes)
  const TreeCount* total;   // (outputs,): of the node
  const TreeSum* units;     // (outputs,): of the integers
  const int32_t* features;  // those that may split, ascending
};
// The best split of the features [first, last) of the list; of equal ones the first. `left` and
// `right` of the split are left 0.
TILEWRIGHT_CPU_KERNEL(tree_best_vector_split,
                      TreeSplit(const TreeVectorSplitParams&, const TreeCodes&, int64_t first,
                                int64_t last))

}  // namespace tilewright
