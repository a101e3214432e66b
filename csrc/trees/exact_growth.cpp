// Which nodes are split between which values, and how sorted lists follow their rows.
#include "tilewright/trees/exact_growth.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "tilewright/trees/cut_placer.h"
#include "tilewright/trees/tree_workspace.h"

namespace tilewright {
namespace {

// Entries that a thread takes at a time.
constexpr int64_t kTaskEntries = 16384;

// What tells the sides of a split apart, of the `present` values of its feature in the node; NaN:
// whether the value is missing.
float threshold_of(const TreeSplit& split, const float* values, int64_t present) {
  if (split.code + 1 == present) return std::numeric_limits<float>::quiet_NaN();
  return cut_between(values[split.code], values[split.code + 1]);
}

}  // namespace

ExactGrowth::ExactGrowth(ExactWorkspace& work, const TreeOptions& options)
    : TreeOutline(options, work.features, work.gradient_unit, work.hessian_unit), work_(work) {}

GrownTree ExactGrowth::run() {
  TreeCount total{0, 0};
  const auto* pairs = work_.pairs[0].as<TreeCount>();
  for (int64_t i = 0; i < work_.active; ++i) {
    add_to(total, pairs[i]);
  }
  const Node root{0, 0, work_.active, 0, total, {-HUGE_VAL, HUGE_VAL}, -1, kNoSplit, 0};
  add_to_tree(root);
  nodes_.push_back(root);
  tree_.threshold.push_back(0);
  if (may_split(root)) search({{-1, 0, -1}});
  for (auto batch = next_batch(); !batch.empty(); batch = next_batch()) expand(batch);
  for (const Node& node : nodes_) {
    if (tree_.feature[size_t(node.id)] >= 0) continue;
    tree_.rows.push_back({node.id, -1, node.side, node.begin, node.end});
  }
  return std::move(tree_);
}

// Where the node's entries are.
SortedColumns ExactGrowth::columns_of(const Node& node) const {
  if (node.id == 0 && work_.takes_all()) return work_.all;
  return {work_.places.as<int32_t>(), work_.values.as<float>(), work_.rows};
}

// The node's values of the feature that splits it.
const float* ExactGrowth::values_of(const Node& node) const {
  const SortedColumns columns = columns_of(node);
  return columns.values + node.split.feature * columns.stride + node.begin;
}

void ExactGrowth::expand(const std::vector<int64_t>& batch) {
  for (const int64_t id : batch) {
    const Node& node = nodes_[size_t(id)];
    const float* values = values_of(node);
    tree_.threshold[size_t(id)] =
        threshold_of(node.split, values, exact_present(values, node.rows()));
  }
  make_children(batch, move_rows(batch));
  tree_.threshold.resize(nodes_.size(), 0);
  std::vector<Family> families;
  for (const int64_t id : batch) {
    const int64_t left = tree_.left[size_t(id)], right = tree_.right[size_t(id)];
    if (may_split(nodes_[size_t(left)]) || may_split(nodes_[size_t(right)])) {
      families.push_back({id, left, right});
    }
  }
  search(families);
}

// Rows and pairs to the places of their children, in the order of the feature that splits: returns
// how many of each node go left.
std::vector<int64_t> ExactGrowth::move_rows(const std::vector<int64_t>& batch) {
  struct Chunk {
    int64_t node, first, last, lefts, present;
  };
  std::vector<int64_t> left_counts;
  std::vector<Chunk> chunks;
  for (const int64_t id : batch) {
    const Node& node = nodes_[size_t(id)];
    const int64_t present = exact_present(values_of(node), node.rows());
    const int64_t lefts =
        node.split.code + 1 + (node.split.default_left ? node.rows() - present : 0);
    left_counts.push_back(lefts);
    for (int64_t at = 0; at < node.rows(); at += kTaskEntries) {
      chunks.push_back({id, at, std::min(at + kTaskEntries, node.rows()), lefts, present});
    }
  }
  auto* map = work_.map.as<int32_t>();
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const Chunk& chunk = chunks[size_t(c)];
    const Node& node = nodes_[size_t(chunk.node)];
    const SortedColumns columns = columns_of(node);
    const int32_t* places = columns.places + node.split.feature * columns.stride + node.begin;
    const int side = node.side, other = other_side(node.side);
    const auto* ids = work_.row_ids[side].as<int32_t>();
    const auto* pairs = work_.pairs[side].as<TreeCount>();
    auto* new_ids = work_.row_ids[other].as<int32_t>();
    auto* new_pairs = work_.pairs[other].as<TreeCount>();
    const int64_t known = node.split.code + 1;  // values that go left
    for (int64_t i = chunk.first; i < chunk.last; ++i) {
      int64_t to = i;
      if (i >= chunk.present && node.split.default_left) {
        to = known + (i - chunk.present);
      } else if (i >= known) {
        to = chunk.lefts + (i - known);
      }
      const int32_t from = places[i];
      to += node.begin;
      map[from] = int32_t(to);
      new_ids[to] = ids[from];
      new_pairs[to] = pairs[from];
    }
  });
  return left_counts;
}

std::vector<ExactGrowth::Task> ExactGrowth::tasks_of(const std::vector<Family>& families) const {
  const auto features = int64_t(features_.size());
  std::vector<Task> tasks;
  for (size_t i = 0; i < families.size(); ++i) {
    const Family& family = families[i];
    const int64_t rows = nodes_[size_t(family.parent < 0 ? family.left : family.parent)].rows();
    const int64_t width = std::max<int64_t>(kTaskEntries / rows, 1);
    for (int64_t at = 0; at < features; at += width) {
      tasks.push_back({i, at, std::min(at + width, features)});
    }
  }
  return tasks;
}

// The entries of a node to its children, or of all rows to those that take part.
void ExactGrowth::divide(const Family& family, int64_t first, int64_t last, int64_t thread) {
  SortedColumns from = work_.all;
  int64_t begin = 0, count = work_.rows, middle = work_.active;
  if (family.parent >= 0) {
    const Node& parent = nodes_[size_t(family.parent)];
    from = columns_of(parent);
    begin = parent.begin;
    count = parent.rows();
    middle = nodes_[size_t(family.right)].begin;
  } else if (work_.takes_all()) {
    return;
  }
  HugeBuffer& spare = work_.spare[size_t(thread)];
  const SortedOut right{spare.as<int32_t>(), spare.as<float>() + work_.rows};
  for (int64_t i = first; i < last; ++i) {
    const int64_t feature = features_[size_t(i)], at = feature * work_.rows + begin;
    const SortedOut left{work_.places.as<int32_t>() + at, work_.values.as<float>() + at};
    const int64_t lefts = exact_divide(from, feature, begin, count, work_.map.as<int32_t>(),
                                       int32_t(middle), left, right);
    if (family.parent < 0) continue;
    const auto bytes = size_t(count - lefts) * sizeof(int32_t);
    std::memcpy(left.places + lefts, right.places, bytes);
    std::memcpy(left.values + lefts, right.values, bytes);
  }
}

// The best split of the features [first, last) of features_, of those that the node may ask for.
TreeSplit ExactGrowth::best_split(const Node& node, const std::vector<int32_t>& features,
                                  int64_t first, int64_t last) const {
  TreeSplitParams params{};
  params.rules = options_.rules;
  params.bounds = node.bounds;
  params.bounded = bounded_;
  params.monotone = options_.monotone.empty() ? nullptr : options_.monotone.data();
  params.total = node.total;
  params.gradient_unit = gradient_unit_;
  params.hessian_unit = hessian_unit_;
  params.features = features.data();
  const auto place_of = [&](int64_t i) {
    return std::lower_bound(features.begin(), features.end(), features_[size_t(i)]) -
           features.begin();
  };
  const int64_t end = last < int64_t(features_.size()) ? place_of(last) : int64_t(features.size());
  return exact_best_split(params, columns_of(node), work_.pairs[node.side].as<TreeCount>(),
                          node.begin, node.rows(), place_of(first), end);
}

// Has lists follow their rows, and finds the splits of children.
void ExactGrowth::search(const std::vector<Family>& families) {
  const std::vector<Task> tasks = tasks_of(families);
  std::vector<std::vector<int32_t>> features(2 * families.size());
  const auto child_of = [&](size_t which) {
    const Family& family = families[which / 2];
    const int64_t id = which % 2 == 0 ? family.left : family.right;
    return id >= 0 && may_split(nodes_[size_t(id)]) ? id : -1;
  };
  for (size_t which = 0; which < features.size(); ++which) {
    if (child_of(which) >= 0) features[which] = features_of(nodes_[size_t(child_of(which))]);
  }
  std::vector<TreeSplit> found(2 * tasks.size(), kNoSplit);
  run_tree_tasks(int64_t(tasks.size()), [&](int64_t t, int64_t thread) {
    const Task& task = tasks[size_t(t)];
    divide(families[task.family], task.first, task.last, thread);
    for (const size_t side : {0, 1}) {
      const size_t which = 2 * task.family + side;
      if (child_of(which) < 0) continue;
      found[size_t(2 * t) + side] =
          best_split(nodes_[size_t(child_of(which))], features[which], task.first, task.last);
    }
  });
  for (size_t i = 0; i < found.size(); ++i) {  // features ascend within a node
    const int64_t id = child_of(2 * tasks[i / 2].family + i % 2);
    if (id < 0) continue;
    TreeSplit& best = nodes_[size_t(id)].split;
    if (found[i].gain > best.gain) best = found[i];
  }
  for (size_t which = 0; which < features.size(); ++which) {
    const int64_t id = child_of(which);
    if (id >= 0 && is_worth_it(nodes_[size_t(id)].split)) open_.push_back(id);
  }
}

}  // namespace tilewright
