// The last level of splits, whose histograms are asked for once.
#include <algorithm>

#include "tilewright/trees/tree_growth.h"

namespace tilewright {
namespace {

// Pairs of nodes for each thread, at least.
constexpr int64_t kPairsOfThread = 4;

}  // namespace

// Whether each pair's histograms may be made by one thread, and searched while they are in its
// caches: where children are leaves, and pairs are many and alike enough to keep threads busy.
bool TreeGrowth::are_searched_at_once(const std::vector<Pair>& pairs) const {
  const int64_t threads = at::get_num_threads();
  if (work_.few_rows || work_.outputs > 0 || !options_.categorical.empty() ||
      int64_t(pairs.size()) < kPairsOfThread * threads) {
    return false;
  }
  int64_t most = 0, all = 0;
  for (const Pair& pair : pairs) {
    const Node& counted = nodes_[size_t(pair.left)];
    if (!is_last_level(counted)) return false;
    most = std::max(most, counted.rows());
    all += counted.rows();
  }
  return most * threads <= all;
}

void TreeGrowth::search_at_once(std::vector<Pair> pairs) {
  const TreeCodes& codes = work_.codes;
  const int64_t counters = codes.features * codes.codes;
  const auto rows_of = [&](const Pair& pair) { return nodes_[size_t(pair.left)].rows(); };
  std::sort(pairs.begin(), pairs.end(), [&](const Pair& a, const Pair& b) {
    return rows_of(a) > rows_of(b) || (rows_of(a) == rows_of(b) && a.left < b.left);
  });
  const auto threads = size_t(at::get_num_threads());
  work_.packed.resize(std::max(work_.packed.size(), threads));
  work_.sums.resize(std::max(work_.sums.size(), threads));
  run_tree_tasks(int64_t(pairs.size()), [&](int64_t task, int64_t thread) {
    const Pair& pair = pairs[size_t(task)];
    const int64_t ids[2] = {pair.left, pair.right};
    const Node& counted = nodes_[size_t(pair.left)];
    auto& packed = work_.packed[size_t(thread)];
    packed.resize(size_t(counters));
    auto& sums = work_.sums[size_t(thread)];
    sums.clear();
    for (int64_t at = counted.begin; at < counted.end; at += kTreeWordRows) {
      if (at > counted.begin) {  // words have no room for more rows
        sums.resize(size_t(counters), {0, 0});
        tree_flush(packed.data(), sums.data(), counters);
      }
      tree_accumulate(codes, work_.words_at(counted.side, at), work_.rows_at(counted.side, at),
                      std::min(kTreeWordRows, counted.end - at), packed.data());
    }
    TreePairParams params{};
    std::vector<int32_t> features[2];
    for (const size_t which : {0, 1}) {
      const Node& node = nodes_[size_t(ids[which])];
      if (may_split(node)) features[which] = features_of(node);
      params.nodes[which] = split_rules(node);
      params.nodes[which].features = features[which].data();
      params.features[which] = int64_t(features[which].size());
    }
    params.parent = work_.histograms->at(nodes_[size_t(pair.right)].histogram);
    params.packed = packed.data();
    params.sums = sums.empty() ? nullptr : sums.data();
    TreeSplit found[2];
    tree_split_pair(params, codes, found);
    for (const size_t which : {0, 1}) nodes_[size_t(ids[which])].split = found[which];
  });
  std::vector<int64_t> ids;
  for (const Pair& pair : pairs) {
    let_go(pair.right);
    nodes_[size_t(pair.right)].histogram = -1;
    ids.insert(ids.end(), {pair.left, pair.right});
  }
  open_where_worth_it(ids);
}

}  // namespace tilewright
