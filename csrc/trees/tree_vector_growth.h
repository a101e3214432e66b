// The growth of a tree whose leaves are vectors: one split for all outputs, a histogram for each.
#pragma once
#include "tilewright/trees/tree_growth.h"

namespace tilewright {

// A split gains the sum over outputs of what it gains for each; a node weighs the mean of its
// outputs' hessians.
class VectorGrowth : public TreeGrowth {
 public:
  VectorGrowth(TreeGrower::Workspace& work, const TreeOptions& options);

 private:
  TreeCount sum_of_root() override;
  double hessian_of(int64_t id) const override;
  void answer(const Node& node) override;
  void make_children(const std::vector<int64_t>& batch,
                     const std::vector<int64_t>& left_counts) override;
  TreeSplit best_split(const Node& node, const std::vector<int32_t>& features, int64_t first,
                       int64_t last) const override;
  TreeSum real(int64_t id, int64_t output) const;

  const int64_t outputs_;
  std::vector<TreeCount> totals_;  // (nodes, outputs)
};

}  // namespace tilewright
