// What is done with the rows of a grown tree's leaves, wherever a grower keeps them.
#pragma once
#include <algorithm>
#include <vector>

#include "tilewright/trees/quantile.h"
#include "tilewright/trees/tree_gradients.h"
#include "tilewright/trees/tree_workspace.h"

namespace tilewright {

// The rows of leaves, in pieces.
inline std::vector<GrownTree::Rows> leaf_chunks(const GrownTree& tree) {
  std::vector<GrownTree::Rows> chunks;
  for (const GrownTree::Rows& rows : tree.rows) {
    for (int64_t at = rows.begin; at < rows.end; at += kGradientRows) {
      chunks.push_back(
          {rows.leaf, rows.other, rows.side, at, std::min(at + kGradientRows, rows.end)});
    }
  }
  return chunks;
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
void add_leaf_values(const GrownTree& tree, const std::vector<float>& values, float* scores,
                     const RowsOf& rows_of) {
  const std::vector<GrownTree::Rows> chunks = leaf_chunks(tree);
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const GrownTree::Rows& chunk = chunks[size_t(c)];
    const auto [rows, flags] = rows_of(chunk);
    const float of_leaves[2] = {values[size_t(chunk.leaf)],
                                chunk.other < 0 ? 0.f : values[size_t(chunk.other)]};
    tree_add_values(rows, flags, chunk.end - chunk.begin, of_leaves, scores);
  });
}

}  // namespace tilewright
