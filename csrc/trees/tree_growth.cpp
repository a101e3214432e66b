// Which nodes of a growing tree are split, and by what.
#include "tilewright/trees/tree_growth.h"

#include <algorithm>
#include <cmath>
#include <mutex>

namespace tilewright {
namespace {

// Features whose splits are searched together, at least.
constexpr int64_t kSearchFeatures = 8;

}  // namespace

TreeGrowth::TreeGrowth(TreeGrower::Workspace& work, const TreeOptions& options)
    : TreeOutline(options, work.codes.features, work.gradient_unit, work.hessian_unit),
      work_(work) {}

TreeCount TreeGrowth::sum_of_root() {
  TreeCount total{0, 0};
  std::mutex lock;
  run_tree_tasks(ceil_div(work_.active, kSumRows), [&](int64_t chunk, int64_t) {
    const int64_t first = chunk * kSumRows, last = std::min(first + kSumRows, work_.active);
    const TreeRows rows = work_.rows_at(root_side(), 0);
    const int64_t* words = work_.words_at(root_side(), 0);
    TreeCount sum{0, 0};
    for (int64_t i = first; i < last; ++i) {
      const TreeCount one =
          words != nullptr ? count_of(words[i])
                           : work_.pairs.as<TreeCount>()[rows.list == nullptr ? i : rows.list[i]];
      add_to(sum, one);
    }
    const std::lock_guard<std::mutex> guard(lock);
    add_to(total, sum);
  });
  return total;
}

GrownTree TreeGrowth::run() {
  Node root{0, 0, work_.active, 0, sum_of_root(), {-HUGE_VAL, HUGE_VAL}, -1, kNoSplit, root_side()};
  add_to_tree(root);
  nodes_.push_back(root);
  if (may_split(root)) {
    build_histograms({0});
    find_splits({{0, -1}});
  }
  for (auto batch = next_batch(); !batch.empty(); batch = next_batch()) expand(batch);
  for (const int64_t id : open_) let_go(id);
  for (const Node& node : nodes_) {
    const auto id = size_t(node.id);
    const bool leaf = tree_.feature[id] < 0;
    // The last level's leaves are told by their parents.
    if (leaf && (options_.max_depth == 0 || node.depth < options_.max_depth || node.depth == 0)) {
      tree_.rows.push_back({node.id, -1, node.side, node.begin, node.end});
    } else if (!leaf && is_last_level(node)) {
      tree_.rows.push_back({tree_.left[id], tree_.right[id], node.side, node.begin, node.end});
    }
  }
  return std::move(tree_);
}

void TreeGrowth::let_go(int64_t id) { work_.histograms->give_back(nodes_[size_t(id)].histogram); }

void TreeGrowth::expand(const std::vector<int64_t>& batch) {
  find_categories(batch);
  std::vector<RowChunk> chunks;
  make_children(batch, flag_rows(batch, chunks));
  divide_rows(chunks);
  std::vector<Pair> pairs;
  for (const int64_t id : batch) {
    const int32_t left = tree_.left[size_t(id)], right = tree_.right[size_t(id)];
    Node &low = nodes_[size_t(left)], &high = nodes_[size_t(right)];
    const int32_t slot = nodes_[size_t(id)].histogram;
    if (!may_split(low) && !may_split(high)) {
      work_.histograms->give_back(slot);
      continue;
    }
    // The smaller child is counted, the other is what remains of the parent.
    const bool left_is_small = low.rows() <= high.rows();
    (left_is_small ? high : low).histogram = slot;
    pairs.push_back({left_is_small ? left : right, left_is_small ? right : left});
  }
  if (are_searched_at_once(pairs)) return search_at_once(pairs);
  std::vector<int64_t> to_build;
  for (const Pair& pair : pairs) to_build.push_back(pair.left);
  build_histograms(to_build);
  find_splits(pairs);
}

// Of nodes that are split by categories: which codes go left. To be asked while their histograms
// stand.
void TreeGrowth::find_categories(const std::vector<int64_t>& batch) {
  const int64_t codes = work_.codes.codes;
  for (const int64_t id : batch) {
    Node& node = nodes_[size_t(id)];
    if (node.split.right_categories == 0) continue;
    std::vector<uint8_t> left(static_cast<size_t>(codes));
    tree_category_table(split_params(node), work_.codes, node.split, left.data());
    for (int32_t c = 0; c + 1 < codes; ++c) {
      if (!left[size_t(c)]) tree_.categories[size_t(id)].push_back(c);
    }
    node.table = int32_t(tables_.size());
    tables_.push_back(std::move(left));
  }
}

// `sums` are left for the caller.
TreeSplitParams TreeGrowth::split_rules(const Node& node) const {
  TreeSplitParams params{};
  params.rules = options_.rules;
  params.bounds = node.bounds;
  params.bounded = bounded_;
  params.monotone = options_.monotone.empty() ? nullptr : options_.monotone.data();
  params.total = node.total;
  params.gradient_unit = gradient_unit_;
  params.hessian_unit = hessian_unit_;
  params.categorical = options_.categorical.empty() ? nullptr : options_.categorical.data();
  params.max_cat_to_onehot = options_.max_cat_to_onehot;
  params.max_cat_threshold = options_.max_cat_threshold;
  return params;
}

TreeSplitParams TreeGrowth::split_params(const Node& node) const {
  TreeSplitParams params = split_rules(node);
  params.sums = work_.histograms->at(node.histogram);
  return params;
}

TreeSplit TreeGrowth::best_split(const Node& node, const std::vector<int32_t>& features,
                                 int64_t first, int64_t last) const {
  TreeSplitParams params = split_params(node);
  params.features = features.data();
  return tree_best_split(params, work_.codes, first, last);
}

// Subtracts where a pair has two nodes, and searches both.
void TreeGrowth::find_splits(const std::vector<Pair>& pairs) {
  const TreeCodes& codes = work_.codes;
  const int64_t count = int64_t(features_.size());
  const int64_t wanted = 4 * at::get_num_threads() / std::max<int64_t>(pairs.size(), 1);
  const int64_t blocks = std::clamp<int64_t>(wanted, 1, ceil_div(count, kSearchFeatures));
  const int64_t all = codes.features * work_.histograms_of_node();
  const int64_t width = ceil_div(count, blocks), all_width = ceil_div(all, blocks);
  std::vector<std::vector<int32_t>> features(pairs.size() * 2);
  for (size_t i = 0; i < pairs.size(); ++i) {
    features[2 * i] = features_of(nodes_[size_t(pairs[i].left)]);
    if (pairs[i].right >= 0) features[2 * i + 1] = features_of(nodes_[size_t(pairs[i].right)]);
  }
  // Subtraction goes over all features, since a child may ask for those its parent did not.
  run_tree_tasks(int64_t(pairs.size()) * blocks, [&](int64_t task, int64_t) {
    const Pair& pair = pairs[size_t(task / blocks)];
    if (pair.right < 0) return;
    const int64_t first = std::min(task % blocks * all_width, all);
    const int64_t last = std::min(first + all_width, all);
    tree_subtract(work_.histograms->at(nodes_[size_t(pair.right)].histogram) + first * codes.codes,
                  work_.histograms->at(nodes_[size_t(pair.left)].histogram) + first * codes.codes,
                  (last - first) * codes.codes);
  });
  std::vector<TreeSplit> found(pairs.size() * 2 * size_t(blocks), kNoSplit);
  run_tree_tasks(int64_t(found.size()), [&](int64_t task, int64_t) {
    const int64_t which = task / blocks;
    const Pair& pair = pairs[size_t(which / 2)];
    const int64_t id = which % 2 == 0 ? pair.left : pair.right;
    if (id < 0 || !may_split(nodes_[size_t(id)])) return;
    const auto& list = features[size_t(which)];
    const int64_t first = std::min<int64_t>(task % blocks * width, list.size());
    const int64_t last = std::min<int64_t>(first + width, list.size());
    found[size_t(task)] = best_split(nodes_[size_t(id)], list, first, last);
  });
  std::vector<int64_t> ids;
  for (size_t which = 0; which < 2 * pairs.size(); ++which) {
    const int64_t id = which % 2 == 0 ? pairs[which / 2].left : pairs[which / 2].right;
    if (id < 0) continue;
    Node& node = nodes_[size_t(id)];
    for (int64_t b = 0; b < blocks; ++b) {
      const TreeSplit& split = found[which * size_t(blocks) + size_t(b)];
      if (split.gain > node.split.gain) node.split = split;
    }
    ids.push_back(id);
  }
  open_where_worth_it(ids);
}

// Of nodes whose best splits are known.
void TreeGrowth::open_where_worth_it(std::vector<int64_t> ids) {
  std::sort(ids.begin(), ids.end());
  for (const int64_t id : ids) {
    if (is_worth_it(nodes_[size_t(id)].split)) {
      open_.push_back(id);
    } else {
      let_go(id);
    }
  }
}

}  // namespace tilewright
