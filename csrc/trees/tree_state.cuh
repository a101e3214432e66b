// What a tree that grows on CUDA consists of: everything lives on the device, sized by shapes.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/trees/tree_words_kernel.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Node i's children are 2i + 1 and 2i + 2; what is never made has no rows and no feature.
struct TreeNode {
  TreeCount total;  // of words
  TreeCount fine;
  TreeBounds bounds;
  int32_t begin, end;        // its positions
  int32_t slot;              // its histogram, or -1
  int32_t counted, sibling;  // slot where rows are counted; slot that is taken from the parent's
  int32_t open;              // whether it may be split
  int32_t feature;           // -1: a leaf
  int32_t code, default_left;
  int32_t unused;
  TreeCount left;
  double gain;
};
static_assert(sizeof(TreeNode) % sizeof(int64_t) == 0);

// A node's best split by one feature.
struct TreeCandidate {
  double gain;  // -infinity: none
  TreeCount left;
  int32_t code, default_left;
};
static_assert(sizeof(TreeCandidate) % sizeof(int64_t) == 0);

struct TreeGrowthParams {
  const void* codes;  // (rows, features) of uint8_t, or uint16_t where `wide`
  bool wide;
  int64_t rows, features, num_codes;
  const int32_t* bins;      // (features,), any numbers
  const bool* mask;         // (rows,): those that take part; null: all
  const bool* columns;      // (features,): those that may split; null: all
  const int8_t* monotone;   // (features,), or null
  const bool* constrained;  // whether monotone says anything; null where there is none
  TreeRegularisation rules;
  int64_t max_depth, level;  // the level at work, -1 before the root
  const int64_t* words;
  bool pairs;
  const TreeScales* scales;
  TreeNode* nodes;
  TreeCount* histograms;      // (slots, features, num_codes)
  TreeCandidate* candidates;  // (nodes of a level, features)
  int32_t *order, *owner;     // by position: the row, the node it is in
  int32_t *next_order, *next_owner;
  int32_t* sides;         // by position: whether it goes left
  const int32_t* before;  // their sums up to and with each; before the root those of the mask

  TILEWRIGHT_HD int64_t first_node() const { return (int64_t(1) << level) - 1; }
  TILEWRIGHT_HD int64_t level_nodes() const { return int64_t(1) << level; }
  TILEWRIGHT_HD bool is_at_work(int32_t node) const {
    return node >= first_node() && node < first_node() + level_nodes();
  }
};

// Codes that do not exist count as missing.
TILEWRIGHT_DEVICE int64_t tree_code(const TreeGrowthParams& p, int64_t row, int64_t feature) {
  const int64_t at = row * p.features + feature;
  const int64_t code = p.wide ? int64_t(ldg(static_cast<const uint16_t*>(p.codes) + at))
                              : int64_t(ldg(static_cast<const uint8_t*>(p.codes) + at));
  return min_of(code, p.num_codes - 1);
}
TILEWRIGHT_DEVICE bool goes_left(const TreeGrowthParams& p, const TreeNode& node, int64_t row) {
  const int64_t code = tree_code(p, row, node.feature);
  return code == p.num_codes - 1 ? node.default_left != 0 : code <= node.code;
}
TILEWRIGHT_DEVICE TreeSum real_sum(TreeCount sum, double gradient_unit, double hessian_unit) {
  return {double(sum.gradient) * gradient_unit, double(sum.hessian) * hessian_unit};
}
TILEWRIGHT_DEVICE TreeSum real_sum(const TreeGrowthParams& p, TreeCount sum) {
  return real_sum(sum, p.scales->gradient_unit, p.scales->hessian_unit);
}
TILEWRIGHT_DEVICE bool is_bounded(const TreeGrowthParams& p) {
  return p.rules.max_delta_step > 0 || (p.constrained != nullptr && *p.constrained);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
