#include "tilewright/trees/tree_outline.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tilewright/trees/tree_sampling.h"

namespace tilewright {

TreeOutline::TreeOutline(const TreeOptions& options, int64_t features, double gradient_unit,
                         double hessian_unit)
    : options_(options), gradient_unit_(gradient_unit), hessian_unit_(hessian_unit) {
  std::vector<int32_t> all(static_cast<size_t>(features));
  std::iota(all.begin(), all.end(), 0);
  features_ = draw_columns(all, options.colsample_bytree, TreeDraw::kTreeColumns, 0, options.tree,
                           options.seed);
  bounded_ = options.rules.max_delta_step > 0 ||
             std::any_of(options.monotone.begin(), options.monotone.end(),
                         [](int8_t sign) { return sign != 0; });
}

TreeSum TreeOutline::real(TreeCount sum) const {
  return {double(sum.gradient) * gradient_unit_, double(sum.hessian) * hessian_unit_};
}

double TreeOutline::hessian_of(int64_t id) const { return real(nodes_[size_t(id)].total).hessian; }

void TreeOutline::answer(const Node& node) {
  const TreeSum sum = real(node.total);
  tree_.weight.push_back(leaf_weight(sum, options_.rules, node.bounds));
  tree_.cover.push_back(sum.hessian);
}

int32_t TreeOutline::add_to_tree(const Node& node) {
  tree_.feature.push_back(-1);
  tree_.code.push_back(0);
  tree_.categories.emplace_back();
  tree_.left.push_back(-1);
  tree_.right.push_back(-1);
  tree_.default_left.push_back(0);
  tree_.bounds.push_back(node.bounds);
  tree_.gain.push_back(0);
  answer(node);
  return int32_t(tree_.feature.size() - 1);
}

bool TreeOutline::may_split(const Node& node) const {
  return node.rows() >= 2 && (options_.max_depth == 0 || node.depth < options_.max_depth) &&
         hessian_of(node.id) >= 2 * options_.rules.min_child_weight;
}

// Whether its children may not be split again.
bool TreeOutline::is_last_level(const Node& node) const {
  return options_.max_depth > 0 && node.depth + 1 == options_.max_depth;
}

bool TreeOutline::is_worth_it(const TreeSplit& split) const {
  return split.gain > kLeastGain && split.gain >= options_.rules.gamma;
}

// Level by level, or the one of the greatest gain; as long as leaves are left to make.
std::vector<int64_t> TreeOutline::next_batch() {
  if (open_.empty()) return {};
  std::vector<int64_t> batch;
  if (options_.loss_guided) {
    const auto best = std::max_element(open_.begin(), open_.end(), [&](int64_t a, int64_t b) {
      const double first = nodes_[size_t(a)].split.gain, second = nodes_[size_t(b)].split.gain;
      return first < second || (first == second && a > b);
    });
    batch = {*best};
    open_.erase(best);
  } else {
    batch.swap(open_);
  }
  if (options_.max_leaves > 0) {
    const auto left = size_t(std::max<int64_t>(options_.max_leaves - leaves_, 0));
    for (size_t i = left; i < batch.size(); ++i) let_go(batch[i]);
    if (batch.size() > left) batch.resize(left);
  }
  leaves_ += int64_t(batch.size());
  return batch;
}

void TreeOutline::make_children(const std::vector<int64_t>& batch,
                                const std::vector<int64_t>& left_counts) {
  for (size_t i = 0; i < batch.size(); ++i) {
    const Node node = nodes_[size_t(batch[i])];
    const TreeSplit& split = node.split;
    TreeBounds low = node.bounds, high = node.bounds;
    const int sign = options_.monotone.empty() ? 0 : options_.monotone[size_t(split.feature)];
    if (sign != 0) {
      const double middle = (leaf_weight(real(split.left), options_.rules, node.bounds) +
                             leaf_weight(real(split.right), options_.rules, node.bounds)) /
                            2;
      (sign > 0 ? low.upper : low.lower) = middle;
      (sign > 0 ? high.lower : high.upper) = middle;
    }
    const int64_t middle = node.begin + left_counts[i];
    const int side = other_side(node.side);
    Node left{0, node.begin, middle, node.depth + 1, split.left, low, -1, kNoSplit, side};
    Node right{0, middle, node.end, node.depth + 1, split.right, high, -1, kNoSplit, side};
    for (Node* child : {&left, &right}) {
      child->id = add_to_tree(*child);
      nodes_.push_back(*child);
    }
    const auto id = size_t(node.id);
    tree_.feature[id] = split.feature;
    tree_.code[id] = split.code;
    tree_.default_left[id] = split.default_left;
    tree_.left[id] = left.id;
    tree_.right[id] = right.id;
    tree_.gain[id] = split.gain;
  }
}

// The columns that a node may split: of the tree's a share of the level, of these one of the node.
std::vector<int32_t> TreeOutline::features_of(const Node& node) const {
  const TreeOptions& o = options_;
  const auto level = draw_columns(features_, o.colsample_bylevel, TreeDraw::kLevelColumns,
                                  uint32_t(node.depth), o.tree, o.seed);
  return draw_columns(level, o.colsample_bynode, TreeDraw::kNodeColumns, uint32_t(node.id), o.tree,
                      o.seed);
}

}  // namespace tilewright
