// Which nodes of a growing tree are split, and by what.
#include "tilewright/trees/tree_growth.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>

#include "tilewright/trees/tree_sampling.h"

namespace tilewright {
namespace {

// Rows whose sums a thread adds up at a time.
constexpr int64_t kSumRows = 16384;
// Features whose splits are searched together, at least.
constexpr int64_t kSearchFeatures = 8;
constexpr TreeSplit kNoSplit{-HUGE_VAL, -1, 0, 0, false, {0, 0}, {0, 0}};

}  // namespace

TreeGrowth::TreeGrowth(TreeGrower::Workspace& work, const TreeOptions& options)
    : work_(work), options_(options) {
  std::vector<int32_t> all(size_t(work.codes.features));
  std::iota(all.begin(), all.end(), 0);
  features_ = draw_columns(all, options.colsample_bytree, TreeDraw::kTreeColumns, 0, options.tree,
                           options.seed);
  bounded_ = options.rules.max_delta_step > 0 ||
             std::any_of(options.monotone.begin(), options.monotone.end(),
                         [](int8_t sign) { return sign != 0; });
}

TreeSum TreeGrowth::real(TreeCount sum) const {
  return {double(sum.gradient) * work_.gradient_unit, double(sum.hessian) * work_.hessian_unit};
}

int32_t TreeGrowth::add_to_tree(const Node& node) {
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

void TreeGrowth::answer(const Node& node) {
  const TreeSum sum = real(node.total);
  tree_.weight.push_back(leaf_weight(sum, options_.rules, node.bounds));
  tree_.cover.push_back(sum.hessian);
}

double TreeGrowth::hessian_of(int64_t id) const { return real(nodes_[size_t(id)].total).hessian; }

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
      sum.gradient += one.gradient;
      sum.hessian += one.hessian;
    }
    const std::lock_guard<std::mutex> guard(lock);
    total.gradient += sum.gradient;
    total.hessian += sum.hessian;
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
  for (const int64_t id : open_) work_.histograms->give_back(nodes_[size_t(id)].histogram);
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

bool TreeGrowth::may_split(const Node& node) const {
  return node.rows() >= 2 && (options_.max_depth == 0 || node.depth < options_.max_depth) &&
         hessian_of(node.id) >= 2 * options_.rules.min_child_weight;
}

// Whether its children may not be split again.
bool TreeGrowth::is_last_level(const Node& node) const {
  return options_.max_depth > 0 && node.depth + 1 == options_.max_depth;
}

// Level by level, or the one of the greatest gain; as long as leaves are left to make.
std::vector<int64_t> TreeGrowth::next_batch() {
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
    for (size_t i = left; i < batch.size(); ++i) {
      work_.histograms->give_back(nodes_[size_t(batch[i])].histogram);
    }
    if (batch.size() > left) batch.resize(left);
  }
  leaves_ += int64_t(batch.size());
  return batch;
}

void TreeGrowth::expand(const std::vector<int64_t>& batch) {
  find_categories(batch);
  std::vector<RowChunk> chunks;
  make_children(batch, flag_rows(batch, chunks));
  divide_rows(chunks);
  std::vector<int64_t> to_build;
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
    to_build.push_back(left_is_small ? left : right);
    pairs.push_back({left_is_small ? left : right, left_is_small ? right : left});
  }
  build_histograms(to_build);
  find_splits(pairs);
}

void TreeGrowth::make_children(const std::vector<int64_t>& batch,
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

TreeSplitParams TreeGrowth::split_params(const Node& node) const {
  TreeSplitParams params{};
  params.rules = options_.rules;
  params.bounds = node.bounds;
  params.bounded = bounded_;
  params.monotone = options_.monotone.empty() ? nullptr : options_.monotone.data();
  params.sums = work_.histograms->at(node.histogram);
  params.total = node.total;
  params.gradient_unit = work_.gradient_unit;
  params.hessian_unit = work_.hessian_unit;
  params.categorical = options_.categorical.empty() ? nullptr : options_.categorical.data();
  params.max_cat_to_onehot = options_.max_cat_to_onehot;
  params.max_cat_threshold = options_.max_cat_threshold;
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
    if (node.split.gain > kLeastGain && node.split.gain >= options_.rules.gamma) {
      ids.push_back(id);
    } else {
      work_.histograms->give_back(node.histogram);
    }
  }
  std::sort(ids.begin(), ids.end());
  open_.insert(open_.end(), ids.begin(), ids.end());
}

// The columns that a node may split: of the tree's a share of the level, of these one of the node.
std::vector<int32_t> TreeGrowth::features_of(const Node& node) const {
  const TreeOptions& o = options_;
  const auto level = draw_columns(features_, o.colsample_bylevel, TreeDraw::kLevelColumns,
                                  uint32_t(node.depth), o.tree, o.seed);
  return draw_columns(level, o.colsample_bynode, TreeDraw::kNodeColumns, uint32_t(node.id), o.tree,
                      o.seed);
}

}  // namespace tilewright
