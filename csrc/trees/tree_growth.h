// The growth of one tree: which nodes are split, and where their rows go.
#pragma once
#include "tilewright/trees/tree_workspace.h"

namespace tilewright {

class TreeGrowth {
 public:
  TreeGrowth(TreeGrower::Workspace& work, const TreeOptions& options);
  virtual ~TreeGrowth() = default;
  GrownTree run();

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
  // Some rows of a node.
  struct RowChunk {
    int64_t node, begin, end;
    int64_t left;  // how many of them go left
  };
  // Two children, the counted one first; or one node, and -1.
  struct Pair {
    int64_t left, right;
  };

  static int other_side(int side) { return side == 1 ? 0 : 1; }
  // All rows are a range, others a list.
  int root_side() const { return work_.active == work_.codes.count ? -1 : 0; }
  virtual TreeCount sum_of_root();
  // The hessian that min_child_weight limits.
  virtual double hessian_of(int64_t id) const;
  // Appends what the node, which is the next one, answers, and its cover.
  virtual void answer(const Node& node);
  virtual void make_children(const std::vector<int64_t>& batch,
                             const std::vector<int64_t>& left_counts);
  virtual TreeSplit best_split(const Node& node, const std::vector<int32_t>& features,
                               int64_t first, int64_t last) const;

  TreeGrower::Workspace& work_;
  const TreeOptions& options_;
  bool bounded_;
  std::vector<Node> nodes_;  // all of the tree, by id
  GrownTree tree_;

 private:
  TreeSum real(TreeCount sum) const;
  int32_t add_to_tree(const Node& node);
  bool may_split(const Node& node) const;
  std::vector<int64_t> next_batch();
  void expand(const std::vector<int64_t>& batch);
  bool is_last_level(const Node& node) const;
  std::vector<RowChunk> chunks_of(const std::vector<int64_t>& nodes, int64_t rows) const;
  TreeSplitParams split_params(const Node& node) const;
  void find_categories(const std::vector<int64_t>& batch);
  std::vector<int64_t> flag_rows(const std::vector<int64_t>& batch, std::vector<RowChunk>& chunks);
  void divide_rows(const std::vector<RowChunk>& chunks);
  void build_histograms(const std::vector<int64_t>& nodes);
  void build_from_pairs(const std::vector<int64_t>& nodes);
  void find_splits(const std::vector<Pair>& pairs);
  std::vector<int32_t> features_of(const Node& node) const;

  std::vector<int32_t> features_;
  std::vector<std::vector<uint8_t>> tables_;  // of nodes that are split by categories
  std::vector<int64_t> open_;                 // ids of nodes that may be split
  int64_t leaves_ = 1;
};

}  // namespace tilewright
