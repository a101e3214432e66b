// What is done with the rows of a grown tree's leaves, wherever a grower keeps them.
#pragma once
#include <algorithm>
#include <vector>

#include "tilewright/trees/quantile.h"
#include "tilewright/trees/tree_gradients.h"
#include "tilewright/trees/tree_workspace.h"

namespace tilewright {

// Calls body(piece, thread) with the rows of leaves in pieces, `rows_of` a piece says where they
// are. A task has those within a block of rows, so that what it reads by row stays in a
// second-level cache from leaf to leaf, where rows of a leaf are ascending. In another order, as
// exact trees have them, pieces are any, but still apart.
template <class RowsOf, class Body>
void over_leaf_pieces(const GrownTree& tree, int64_t rows, const RowsOf& rows_of,
                      const Body& body) {
  constexpr int64_t kBlockRows = 32768, kLeastTasks = 16, kLeastPiece = 64;
  const auto parts = int64_t(tree.rows.size());
  if (parts == 0 || rows == 0) return;
  const int64_t blocks =
      std::clamp<int64_t>(rows / (kLeastPiece * parts), 1, ceil_div(rows, kBlockRows));
  const int64_t block = ceil_div(rows, blocks);
  const int64_t groups = std::clamp<int64_t>(ceil_div(kLeastTasks, blocks), 1, parts);
  run_tree_tasks(blocks * groups, [&](int64_t task, int64_t thread) {
    const int64_t first = task / groups * block, group = task % groups;
    for (int64_t p = parts * group / groups; p < parts * (group + 1) / groups; ++p) {
      GrownTree::Rows piece = tree.rows[size_t(p)];
      const TreeRows all = rows_of(piece).rows;
      const auto place_of = [&, begin = piece.begin, count = piece.end - piece.begin](int64_t row) {
        if (all.list == nullptr) return begin + std::clamp<int64_t>(row - all.first, 0, count);
        return begin + (std::lower_bound(all.list, all.list + count, row) - all.list);
      };
      const int64_t begin = place_of(first);
      piece.end = place_of(first + block);
      piece.begin = begin;
      if (piece.begin < piece.end) body(piece, thread);
    }
  });
}

// Each leaf answers in one output with a quantile of its rows' labels - scores; `rows_of` a
// GrownTree::Rows says where they are.
template <class RowsOf>
void answer_leaf_quantiles(GrownTree& tree, const float* labels, const float* scores,
                           const float* weights, double alpha, int64_t output,
                           const RowsOf& rows_of) {
  run_tree_tasks(int64_t(tree.rows.size()), [&](int64_t task, int64_t) {
    const GrownTree::Rows& part = tree.rows[size_t(task)];
    const auto [rows, flags] = rows_of(part);
    std::vector<trees::QuantileItem> items[2];
    for (int64_t i = 0; i < part.end - part.begin; ++i) {
      const int64_t row = rows.list == nullptr ? rows.first + i : rows.list[i];
      items[flags != nullptr && flags[i] == 0].push_back(
          {labels[row] - scores[row], weights == nullptr ? 1.f : weights[row]});
    }
    for (const size_t which : {0, 1}) {
      const int32_t leaf = which == 0 ? part.leaf : part.other;
      if (leaf < 0) continue;
      const double answer = trees::quantile_of(items[which], alpha, weights != nullptr);
      const TreeBounds bounds = tree.bounds[size_t(leaf)];
      tree.weight[size_t(leaf * tree.outputs + output)] =
          std::min(std::max(answer, bounds.lower), bounds.upper);
    }
  });
}

// scores[row] += values[leaf] for the rows of leaves.
template <class RowsOf>
void add_leaf_values(const GrownTree& tree, const std::vector<float>& values, int64_t rows,
                     float* scores, const RowsOf& rows_of) {
  over_leaf_pieces(tree, rows, rows_of, [&](const GrownTree::Rows& piece, int64_t) {
    const LeafRows leaf = rows_of(piece);
    const float of_leaves[2] = {values[size_t(piece.leaf)],
                                piece.other < 0 ? 0.f : values[size_t(piece.other)]};
    tree_add_values(leaf.rows, leaf.flags, piece.end - piece.begin, of_leaves, scores);
  });
}

}  // namespace tilewright
