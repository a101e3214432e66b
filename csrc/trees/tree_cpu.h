// What the CPU kernels of tree growing are called with: raw pointers, sizes, rules.
#pragma once
#include <cstdint>

#include "tilewright/core/cpu/isa.h"
#include "tilewright/trees/tree_math.h"

namespace tilewright {

// Quantised features twice: row by row for histograms, column by column for partitions. Codes are
// of uint8_t, or of uint16_t where `wide`.
struct TreeCodes {
  const void* rows;     // (N, row_stride)
  const void* columns;  // (F, N)
  int64_t count, features, row_stride;
  int64_t codes;        // of a feature; the last stands for missing
  const int32_t* bins;  // (F,): how many of the codes a feature uses, missing left out
  bool wide;
};

// Some rows: those of a list, or, where it is null, `first` and those that follow it.
struct TreeRows {
  const int32_t* list;
  int64_t first;
};

// Gradients and hessians to words.
struct TreeWordsParams {
  const void *gradients, *hessians;  // (N,)
  bool is_double;
  double gradient_scale, hessian_scale;
};
// The greatest magnitude of gradients and of hessians.
struct TreeExtremes {
  double gradient, hessian;
  int64_t bad;  // the first row that is not finite or has a hessian below 0, or -1
};
TILEWRIGHT_CPU_KERNEL(tree_extremes,
                      TreeExtremes(const TreeWordsParams&, int64_t begin, int64_t end))
// Of `count` rows, in their order.
TILEWRIGHT_CPU_KERNEL(tree_words,
                      void(const TreeWordsParams&, TreeRows rows, int64_t count, int64_t* words))

// For few rows: a gradient and a hessian each of its own integer, and histograms without words.
TILEWRIGHT_CPU_KERNEL(tree_pairs, void(const TreeWordsParams&, TreeCount* pairs, int64_t count))
TILEWRIGHT_CPU_KERNEL(tree_accumulate_pairs,
                      void(const TreeCodes&, const TreeCount* pairs, TreeRows rows, int64_t count,
                           int64_t first, int64_t last, TreeCount* sums))

// Sums as integers of units finer than words have, 1 / scale: of the rows whose flag is set, and of
// the others; of all where `flags` is null.
TILEWRIGHT_CPU_KERNEL(tree_fine_sums, void(const TreeWordsParams&, TreeRows rows,
                                           const uint8_t* flags, int64_t count, TreeCount sums[2]))

// Adds the words of `count` rows (at most kTreeWordRows), which stand in the rows' order, to packed
// (features, codes). A list of rows may be read up to kTreePrefetch entries beyond its end, codes
// up to kTreeCodesRead bytes beyond theirs.
inline constexpr int64_t kTreePrefetch = 24, kTreeCodesRead = 16;
TILEWRIGHT_CPU_KERNEL(tree_accumulate, void(const TreeCodes&, const int64_t* words, TreeRows rows,
                                            int64_t count, int64_t* packed))
// Adds packed words to sums and clears them; subtracts sums.
TILEWRIGHT_CPU_KERNEL(tree_flush, void(int64_t* packed, TreeCount* sums, int64_t count))
TILEWRIGHT_CPU_KERNEL(tree_subtract, void(TreeCount* from, const TreeCount* what, int64_t count))

struct TreeSplit {
  double gain;      // beyond that of the parent; -infinity: none
  int32_t feature;  // -1: none
  int32_t code;     // of the last bin that goes left; of categories the one that goes right, or -1
  int32_t right_categories;  // how many of the categories in order go right; 0: a numeric split
  bool default_left;
  TreeCount left, right;
};
struct TreeSplitParams {
  TreeRegularisation rules;
  TreeBounds bounds;
  bool bounded;                // whether bounds or max_delta_step say anything
  const int8_t* monotone;      // (F,), or null
  const uint8_t* categorical;  // (F,), or null
  int64_t max_cat_to_onehot, max_cat_threshold;
  const TreeCount* sums;               // (F, codes)
  TreeCount total;                     // of the node
  double gradient_unit, hessian_unit;  // of the integers
  const int32_t* features;             // those that may split, ascending
};
// The best split of the features [first, last) of the list; of equal ones the first.
TILEWRIGHT_CPU_KERNEL(tree_best_split, TreeSplit(const TreeSplitParams&, const TreeCodes&,
                                                 int64_t first, int64_t last))

// Two children: the words of the one that was counted, its other sums, and those of the parent, of
// which the other child's are what remains.
struct TreePairParams {
  TreeSplitParams nodes[2];  // the counted one first; their `sums` are not read
  int64_t features[2];       // how many each may split
  const TreeCount* parent;   // (F, codes)
  int64_t* packed;           // (F, codes)
  const TreeCount* sums;     // (F, codes), or null: none
};
// The best split of each, none of categories; clears the words.
TILEWRIGHT_CPU_KERNEL(tree_split_pair,
                      void(const TreePairParams&, const TreeCodes&, TreeSplit found[2]))

// (codes,): which codes a split of categories sends left. `sums` are those the split was found in.
TILEWRIGHT_CPU_KERNEL(tree_category_table, void(const TreeSplitParams&, const TreeCodes&,
                                                const TreeSplit&, uint8_t* left))

// Sets the flags of rows that go left, clears the others'; returns how many go left. `table`: of a
// split of categories, or null.
TILEWRIGHT_CPU_KERNEL(tree_flag_left,
                      int64_t(const TreeCodes&, const TreeSplit&, const uint8_t* table,
                              TreeRows rows, int64_t count, uint8_t* flags))
// Rows and their words (null: none), those with a flag to `left`, the others to `right`, in order.
struct TreeRowsOut {
  int32_t* rows;
  int64_t* words;
};
TILEWRIGHT_CPU_KERNEL(tree_divide, void(const uint8_t* flags, TreeRows rows, const int64_t* words,
                                        int64_t count, TreeRowsOut left, TreeRowsOut right))
// scores[row] += the first value where the row's flag is set or `flags` is null, else the second.
TILEWRIGHT_CPU_KERNEL(tree_add_values, void(TreeRows rows, const uint8_t* flags, int64_t count,
                                            const float values[2], float* scores))

}  // namespace tilewright
