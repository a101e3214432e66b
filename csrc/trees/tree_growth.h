// The growth of one tree from histograms: which nodes are split, and where their rows go.
#pragma once
#include "tilewright/trees/tree_outline.h"
#include "tilewright/trees/tree_workspace.h"

namespace tilewright {

// Rows whose sums a thread adds up at a time.
inline constexpr int64_t kSumRows = 16384;

class TreeGrowth : protected TreeOutline {
 public:
  TreeGrowth(TreeGrower::Workspace& work, const TreeOptions& options);
  GrownTree run();

 protected:
  // Some rows of a node.
  struct RowChunk {
    int64_t node, begin, end;
    int64_t left;  // how many of them go left
  };
  // Two children, the counted one first, whose place in memory the other's histogram takes; or one
  // node, and -1.
  struct Pair {
    int64_t left, right;
  };

  // All rows are a range, others a list.
  int root_side() const { return work_.active == work_.codes.count ? -1 : 0; }
  virtual TreeCount sum_of_root();
  virtual TreeSplit best_split(const Node& node, const std::vector<int32_t>& features,
                               int64_t first, int64_t last) const;

  TreeGrower::Workspace& work_;

 private:
  void let_go(int64_t id) override;
  void expand(const std::vector<int64_t>& batch);
  std::vector<RowChunk> chunks_of(const std::vector<int64_t>& nodes, int64_t rows) const;
  TreeSplitParams split_rules(const Node& node) const;
  TreeSplitParams split_params(const Node& node) const;
  void find_categories(const std::vector<int64_t>& batch);
  std::vector<int64_t> flag_rows(const std::vector<int64_t>& batch, std::vector<RowChunk>& chunks);
  void divide_rows(const std::vector<RowChunk>& chunks);
  void build_histograms(const std::vector<int64_t>& nodes);
  void build_from_pairs(const std::vector<int64_t>& nodes);
  void find_splits(const std::vector<Pair>& pairs);
  void open_where_worth_it(std::vector<int64_t> ids);
  bool are_searched_at_once(const std::vector<Pair>& pairs) const;
  void search_at_once(std::vector<Pair> pairs);

  std::vector<std::vector<uint8_t>> tables_;  // of nodes that are split by categories
};

}  // namespace tilewright
