// Where nodes of a level are split, on CUDA: a warp for each node and feature scans the bins in
// the order of the CPU's comparisons, so that ties fall alike.
#pragma once
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/trees/tree_state.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kSplitThreads = 128;

TILEWRIGHT_DEVICE TreeCount operator+(TreeCount a, TreeCount b) {
  return {a.gradient + b.gradient, a.hessian + b.hessian};
}
TILEWRIGHT_DEVICE TreeCount operator-(TreeCount a, TreeCount b) {
  return {a.gradient - b.gradient, a.hessian - b.hessian};
}
TILEWRIGHT_DEVICE TreeCount from_lane(TreeCount count, int lane) {
  return {__shfl_sync(0xffffffff, count.gradient, lane),
          __shfl_sync(0xffffffff, count.hessian, lane)};
}

// The sum over this lane and those before it.
TILEWRIGHT_DEVICE TreeCount warp_scan(TreeCount count, int lane) {
#pragma unroll
  for (int distance = 1; distance < kLanes; distance *= 2) {
    const TreeCount below{__shfl_up_sync(0xffffffff, count.gradient, distance),
                          __shfl_up_sync(0xffffffff, count.hessian, distance)};
    if (lane >= distance) count = count + below;
  }
  return count;
}

// Of equal gains the lower rank wins.
struct RankedGain {
  double gain;
  int64_t rank;
  TILEWRIGHT_DEVICE bool loses_to(double other_gain, int64_t other_rank) const {
    return other_gain > gain || (other_gain == gain && other_rank < rank);
  }
};
TILEWRIGHT_DEVICE RankedGain warp_best(RankedGain best) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    const double gain = __shfl_xor_sync(0xffffffff, best.gain, distance);
    const int64_t rank = __shfl_xor_sync(0xffffffff, best.rank, distance);
    if (best.loses_to(gain, rank)) best = {gain, rank};
  }
  return best;
}

// One lane's share of a search.
struct SplitSearch {
  const TreeGrowthParams& p;
  const TreeNode& node;
  double gradient_unit, hessian_unit, parent_gain;
  bool bounded;
  int monotone;
  RankedGain best;
  TreeCount best_left;

  TILEWRIGHT_DEVICE void offer(TreeCount left, int64_t rank) {
    const double gain = children_gain(real_sum(left, gradient_unit, hessian_unit),
                                      real_sum(node.total - left, gradient_unit, hessian_unit),
                                      p.rules, node.bounds, monotone, bounded) -
                        parent_gain;
    if (!(gain > -HUGE_VAL) || !best.loses_to(gain, rank)) return;
    best = {gain, rank};
    best_left = left;
  }
};

// Grid: features by warps, nodes of the level. What a node's histogram lacks it first takes from
// its parent's, which stands in its place.
inline __global__ void tree_candidates_kernel(TreeGrowthParams p) {
  const int lane = threadIdx.x % kLanes;
  const int64_t feature = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
  const TreeNode node = p.nodes[p.first_node() + blockIdx.y];
  if (feature >= p.features || !node.open) return;
  TreeCandidate* const out = p.candidates + blockIdx.y * p.features + feature;
  if (p.columns != nullptr && !p.columns[feature]) {
    if (lane == 0) *out = {-HUGE_VAL, {0, 0}, 0, 0};
    return;
  }
  TreeCount* const sums = p.histograms + (node.slot * p.features + feature) * p.num_codes;
  const TreeCount* const taken =
      node.sibling < 0 ? nullptr
                       : p.histograms + (node.sibling * p.features + feature) * p.num_codes;
  const auto load = [&](int64_t bin) {
    if (taken == nullptr) return sums[bin];
    const TreeCount rest = sums[bin] - taken[bin];
    sums[bin] = rest;
    return rest;
  };
  TreeCount missing{0, 0};
  if (lane == 0) missing = load(p.num_codes - 1);
  missing = from_lane(missing, 0);
  const bool any_missing = missing.gradient != 0 || missing.hessian != 0;
  const int64_t bins = min_of(max_of(int64_t(ldg(p.bins + feature)), int64_t(0)), p.num_codes - 1);
  const bool bounded = is_bounded(p);
  const TreeSum total = real_sum(p, node.total);
  const double parent_gain = bounded
                                 ? gain_at(total, leaf_weight(total, p.rules, node.bounds), p.rules)
                                 : free_gain(total, p.rules);
  SplitSearch search{p,
                     node,
                     p.scales->gradient_unit,
                     p.scales->hessian_unit,
                     parent_gain,
                     bounded,
                     p.monotone == nullptr ? 0 : int(p.monotone[feature]),
                     {-HUGE_VAL, 2 * p.num_codes},
                     {0, 0}};
  TreeCount carried{0, 0};
  for (int64_t first = 0; first < bins; first += kLanes) {
    const int64_t bin = first + lane;
    const TreeCount left = carried + warp_scan(bin < bins ? load(bin) : TreeCount{0, 0}, lane);
    if (bin + 1 < bins + any_missing && bin < bins) search.offer(left, bin);
    if (any_missing && bin + 1 < bins) search.offer(left + missing, p.num_codes + bin);
    carried = from_lane(left, kLanes - 1);
  }
  const RankedGain best = warp_best(search.best);
  if (best.gain > -HUGE_VAL) {
    if (search.best.rank != best.rank) return;  // ranks differ from lane to lane
    const bool default_left = best.rank >= p.num_codes;
    *out = {best.gain, search.best_left,
            int32_t(default_left ? best.rank - p.num_codes : best.rank), int32_t(default_left)};
  } else if (lane == 0) {
    *out = {-HUGE_VAL, {0, 0}, 0, 0};
  }
}

// A warp for each node of the level: the best of its features.
inline __global__ void tree_choose_kernel(TreeGrowthParams p) {
  const int lane = threadIdx.x % kLanes;
  const int64_t place = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
  if (place >= p.level_nodes()) return;
  TreeNode* const node = p.nodes + p.first_node() + place;
  if (!node->open) return;
  const TreeCandidate* const candidates = p.candidates + place * p.features;
  RankedGain best{-HUGE_VAL, p.features};
  for (int64_t f = lane; f < p.features; f += kLanes) {
    const double gain = candidates[f].gain;
    if (best.loses_to(gain, f)) best = {gain, f};
  }
  best = warp_best(best);
  if (lane != 0 || !(best.gain > kLeastGain && best.gain >= p.rules.gamma)) return;
  const TreeCandidate found = candidates[best.rank];
  node->feature = int32_t(best.rank);
  node->code = found.code;
  node->default_left = found.default_left;
  node->left = found.left;
  node->gain = found.gain;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
