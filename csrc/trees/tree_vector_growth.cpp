// What a growing tree of vector leaves does otherwise than one of numbers: its sums.
#include "tilewright/trees/tree_vector_growth.h"

#include <cmath>
#include <mutex>

#include "tilewright/trees/tree_vector_split.h"

namespace tilewright {
VectorGrowth::VectorGrowth(TreeGrower::Workspace& work, const TreeOptions& options)
    : TreeGrowth(work, options), outputs_(work.outputs) {
  tree_.outputs = outputs_;
}

TreeCount VectorGrowth::sum_of_root() {
  totals_.assign(size_t(outputs_), {0, 0});
  std::vector<std::mutex> locks(static_cast<size_t>(outputs_));
  const TreeRows rows = work_.rows_at(root_side(), 0);
  const int64_t chunks = ceil_div(work_.active, kSumRows);
  run_tree_tasks(chunks * outputs_, [&](int64_t task, int64_t) {
    const int64_t k = task / chunks, first = task % chunks * kSumRows;
    const int64_t last = std::min(first + kSumRows, work_.active);
    TreeCount sum{0, 0};
    for (int64_t i = first; i < last; ++i) {
      const TreeCount one = work_.count_at(k, rows.list == nullptr ? i : rows.list[i]);
      add_to(sum, one);
    }
    const std::lock_guard<std::mutex> guard(locks[size_t(k)]);
    add_to(totals_[size_t(k)], sum);
  });
  return {0, 0};
}

TreeSum VectorGrowth::real(int64_t id, int64_t output) const {
  const TreeCount sum = totals_[size_t(id * outputs_ + output)];
  const TreeSum unit = work_.units[size_t(output)];
  return {double(sum.gradient) * unit.gradient, double(sum.hessian) * unit.hessian};
}

double VectorGrowth::hessian_of(int64_t id) const {
  double sum = 0;
  for (int64_t k = 0; k < outputs_; ++k) sum += real(id, k).hessian;
  return sum / double(outputs_);
}

void VectorGrowth::answer(const Node& node) {
  const auto id = int64_t(tree_.cover.size());
  for (int64_t k = 0; k < outputs_; ++k) {
    tree_.weight.push_back(leaf_weight(real(id, k), options_.rules, node.bounds));
  }
  tree_.cover.push_back(hessian_of(id));
}

// The children's sums from the parents' histograms, which still stand.
void VectorGrowth::make_children(const std::vector<int64_t>& batch,
                                 const std::vector<int64_t>& left_counts) {
  const TreeCodes& codes = work_.codes;
  for (const int64_t id : batch) {
    const Node& node = nodes_[size_t(id)];
    const TreeSplit& split = node.split;
    std::vector<TreeCount> left(static_cast<size_t>(outputs_), TreeCount{0, 0}), right = left;
    for (int64_t k = 0; k < outputs_; ++k) {
      const TreeCount* sums =
          work_.histograms->at(node.histogram) + (k * codes.features + split.feature) * codes.codes;
      TreeCount& low = left[size_t(k)];
      if (split.default_left) low = sums[codes.codes - 1];
      for (int64_t bin = 0; bin <= split.code; ++bin) {
        add_to(low, sums[bin]);
      }
      const TreeCount& all = totals_[size_t(id * outputs_ + k)];
      right[size_t(k)] = {all.gradient - low.gradient, all.hessian - low.hessian};
    }
    totals_.insert(totals_.end(), left.begin(), left.end());
    totals_.insert(totals_.end(), right.begin(), right.end());
  }
  TreeGrowth::make_children(batch, left_counts);
}

TreeSplit VectorGrowth::best_split(const Node& node, const std::vector<int32_t>& features,
                                   int64_t first, int64_t last) const {
  TreeVectorSplitParams params{};
  params.rules = options_.rules;
  params.bounded = bounded_;
  params.outputs = outputs_;
  params.sums = work_.histograms->at(node.histogram);
  params.total = totals_.data() + int64_t(node.id) * outputs_;
  params.units = work_.units.data();
  params.features = features.data();
  return tree_best_vector_split(params, work_.codes, first, last);
}

}  // namespace tilewright
