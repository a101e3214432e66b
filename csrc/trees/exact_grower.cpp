#include "tilewright/trees/exact_grower.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "tilewright/core/check.h"
#include "tilewright/trees/exact_growth.h"
#include "tilewright/trees/tree_gradients.h"
#include "tilewright/trees/tree_leaves.h"

namespace tilewright::trees {

ExactGrower::ExactGrower(const InputTable& table)
    : table_(table), columns_(table), work_(std::make_unique<ExactWorkspace>()) {
  ExactWorkspace& w = *work_;
  w.all = columns_.sorted();
  w.rows = columns_.rows();
  w.features = columns_.features();
  const int64_t cells = w.rows * w.features;
  w.places = HugeBuffer(cells * int64_t(sizeof(int32_t)));
  w.values = HugeBuffer(cells * int64_t(sizeof(float)));
  w.map = HugeBuffer(w.rows * int64_t(sizeof(int32_t)));
  for (int side = 0; side < 2; ++side) {
    w.row_ids[side] = HugeBuffer(w.rows * int64_t(sizeof(int32_t)));
    w.pairs[side] = HugeBuffer(w.rows * int64_t(sizeof(TreeCount)));
  }
}

ExactGrower::~ExactGrower() = default;

GrownTree ExactGrower::grow(const at::Tensor& gradients, const at::Tensor& hessians,
                            const std::vector<int32_t>& rows, const TreeOptions& options) {
  ExactWorkspace& w = *work_;
  const int bits = tree_fine_bits(w.rows);
  const TreeWordsParams params = TreeGradients(gradients, hessians, w.rows).scaled(bits, bits);
  w.gradient_unit = 1 / params.gradient_scale;
  w.hessian_unit = 1 / params.hessian_scale;
  w.active = rows.empty() ? w.rows : int64_t(rows.size());
  while (int64_t(w.spare.size()) < at::get_num_threads()) {
    w.spare.emplace_back(w.rows * int64_t(sizeof(int32_t) + sizeof(float)));
  }
  auto* ids = w.row_ids[0].as<int32_t>();
  if (w.takes_all()) {
    std::iota(ids, ids + w.rows, 0);
    tree_pairs(params, w.pairs[0].as<TreeCount>(), w.rows);
  } else {
    // Those that take part to the places in front; the map says of the others that they go right.
    std::copy(rows.begin(), rows.end(), ids);
    auto* map = w.map.as<int32_t>();
    std::fill_n(map, w.rows, int32_t(w.active));
    tree_pairs(params, w.pairs[1].as<TreeCount>(), w.rows);
    for (int64_t i = 0; i < w.active; ++i) {
      map[ids[i]] = int32_t(i);
      w.pairs[0].as<TreeCount>()[i] = w.pairs[1].as<TreeCount>()[ids[i]];
    }
  }
  return ExactGrowth(w, options).run();
}

GrownTree ExactGrower::grow_vectors(const at::Tensor&, const at::Tensor&,
                                    const std::vector<int32_t>&, const TreeOptions&) {
  TILEWRIGHT_CHECK("trees", false, "exact trees have leaves that are numbers, not vectors");
}

void ExactGrower::answer_quantiles(GrownTree& tree, const float* labels, const float* scores,
                                   const float* weights, double alpha, int64_t output) const {
  answer_leaf_quantiles(tree, labels, scores, weights, alpha, output,
                        [&](const GrownTree::Rows& part) {
                          return LeafRows{work_->rows_at(part.side, part.begin), nullptr};
                        });
}

void ExactGrower::add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                                float* scores) const {
  if (work_->takes_all()) {
    return add_leaf_values(tree, values, work_->rows, scores, [&](const GrownTree::Rows& part) {
      return LeafRows{work_->rows_at(part.side, part.begin), nullptr};
    });
  }
  // Rows that did not take part find their leaf by their values.
  GrownTree scaled = tree;
  scaled.weight.assign(values.begin(), values.end());
  ArraysBuilder builder(1);
  builder.add(scaled, at::Tensor(), 1, 0);
  at::Tensor out = at::from_blob(scores, {1, work_->rows}, at::kFloat);
  table_.add_scores(builder.arrays(), out);
}

}  // namespace tilewright::trees
