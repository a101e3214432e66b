// The growth of one tree from sorted columns.
#pragma once
#include <vector>

#include "tilewright/core/huge_pages.h"
#include "tilewright/trees/exact_cpu.h"
#include "tilewright/trees/tree_outline.h"

namespace tilewright {

// What is kept from tree to tree. Rows that take part stand in places, those of a node together, so
// that what a node looks at lies close in memory; a level moves them from one side to the other.
struct ExactWorkspace {
  SortedColumns all;                // of all rows, by row
  int64_t rows, features;           // of the table
  HugeBuffer places, values;        // the columns of the rows that take part, by node
  HugeBuffer row_ids[2], pairs[2];  // by place: int32 rows, TreeCount gradients
  HugeBuffer map;                   // where the row in a place stands after its node's division
  std::vector<HugeBuffer> spare;    // of each thread: entries that go right
  int64_t active = 0;               // rows that take part
  double gradient_unit = 1, hessian_unit = 1;

  bool takes_all() const { return active == rows; }
  TreeRows rows_at(int side, int64_t place) const {
    return {row_ids[side].as<int32_t>() + place, place};
  }
};

class ExactGrowth : private TreeOutline {
 public:
  // Begins with the rows and pairs of the first side.
  ExactGrowth(ExactWorkspace& work, const TreeOptions& options);
  GrownTree run();

 private:
  // The children of a node, which their lists are to be divided from; or the root, without parent
  // and right child.
  struct Family {
    int64_t parent, left, right;
  };
  // Some features of a family, of the list features_.
  struct Task {
    size_t family;
    int64_t first, last;
  };

  SortedColumns columns_of(const Node& node) const;
  const float* values_of(const Node& node) const;
  void expand(const std::vector<int64_t>& batch);
  std::vector<int64_t> move_rows(const std::vector<int64_t>& batch);
  std::vector<Task> tasks_of(const std::vector<Family>& families) const;
  void divide(const Family& family, int64_t first, int64_t last, int64_t thread);
  void search(const std::vector<Family>& families);
  TreeSplit best_split(const Node& node, const std::vector<int32_t>& features, int64_t first,
                       int64_t last) const;

  ExactWorkspace& work_;
};

}  // namespace tilewright
