// What growing trees have in common however their splits are found: which nodes there are, which of
// them are split next, what they answer.
#pragma once
#include <cmath>
#include <vector>

#include "tilewright/trees/tree_cpu.h"
#include "tilewright/trees/tree_grower.h"

namespace tilewright {

inline constexpr TreeSplit kNoSplit{-HUGE_VAL, -1, 0, 0, false, {0, 0}, {0, 0}};

class TreeOutline {
 protected:
  struct Node {
    int32_t id;
    int64_t begin, end, depth;
    TreeCount total;
    TreeBounds bounds;
    int32_t histogram;
    TreeSplit split;
    int side;  // where its rows stand
    int32_t table = -1;
    int64_t rows() const { return end - begin; }
  };

  // The units are those of the integers that sums are.
  TreeOutline(const TreeOptions& options, int64_t features, double gradient_unit,
              double hessian_unit);
  virtual ~TreeOutline() = default;

  static int other_side(int side) { return side == 1 ? 0 : 1; }
  TreeSum real(TreeCount sum) const;
  // The hessian that min_child_weight limits.
  virtual double hessian_of(int64_t id) const;
  // Appends what the node, which is the next one, answers, and its cover.
  virtual void answer(const Node& node);
  int32_t add_to_tree(const Node& node);
  bool may_split(const Node& node) const;
  bool is_last_level(const Node& node) const;
  // Whether the split that was found is to be made.
  bool is_worth_it(const TreeSplit& split) const;
  std::vector<int64_t> next_batch();
  // Of nodes that are not to be split after all.
  virtual void let_go(int64_t /*id*/) {}
  virtual void make_children(const std::vector<int64_t>& batch,
                             const std::vector<int64_t>& left_counts);
  std::vector<int32_t> features_of(const Node& node) const;

  const TreeOptions& options_;
  std::vector<int32_t> features_;
  bool bounded_;
  double gradient_unit_, hessian_unit_;
  std::vector<Node> nodes_;    // all of the tree, by id
  std::vector<int64_t> open_;  // ids of nodes that may be split
  int64_t leaves_ = 1;
  GrownTree tree_;
};

}  // namespace tilewright
