// Whether arrays are trees: the one rule for all operators that walk them.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace tilewright {

// The arrays of predict_trees (predict_trees.h), contiguous.
struct TreePointers {
  const int32_t *feature, *left, *right;
  const float* threshold;
  const int64_t* tree_ptr;
  const int64_t* category_ptr;  // or null
  int64_t nodes, trees, categories;
  const int32_t* members;  // (categories,), where category_ptr is given
};

class TreeWalk {
 public:
  // Checks tree_ptr and category_ptr as a whole. `op` names the operator in errors, `features` is
  // how many x has.
  TreeWalk(const char* op, const TreePointers& pointers, int64_t features);

  // The nodes of a tree in the order of levels, each with its depth. That a node has another parent
  // or is none of the tree's, that a feature is none of x's, a threshold no number, or that its
  // categories do not ascend, is an error that names tree and node.
  const std::vector<std::pair<int32_t, int32_t>>& levels(int64_t tree);

  // Of all nodes, counted from the first tree's.
  bool has_categories(int64_t node) const {
    return p_.category_ptr != nullptr && p_.category_ptr[node] < p_.category_ptr[node + 1];
  }

 private:
  void check_categories(int64_t tree, int32_t node, int64_t place) const;

  const char* op_;
  TreePointers p_;
  int64_t features_;
  std::vector<std::pair<int32_t, int32_t>> order_;  // node, depth
  std::vector<bool> seen_;
};

}  // namespace tilewright
