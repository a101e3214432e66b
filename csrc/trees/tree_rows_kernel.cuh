// Rows and nodes of a tree that grows on CUDA: which rows a node holds, what its children are, what
// leaves answer.
#pragma once
#include "tilewright/core/cuda/atomics.h"
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/core/cuda/shared.h"
#include "tilewright/trees/tree_histogram_kernel.cuh"
#include "tilewright/trees/tree_state.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kRowThreads = 256;

struct TreeRowsParts {
  int64_t* scratch;
  TILEWRIGHT_HD explicit TreeRowsParts(SharedMemory& shared)
      : scratch(shared.take<int64_t>(kLanes)) {}
};

// All rows to positions, those that take part first, in their order; adds up the root's words.
inline __global__ void tree_start_kernel(TreeGrowthParams p) {
  SharedMemory shared;
  const TreeRowsParts parts(shared);
  const int64_t active = p.mask == nullptr ? p.rows : p.before[p.rows - 1];
  TreeCount sum{0, 0};
  for (int64_t row : grid_stride(p.rows)) {
    const bool plays = p.mask == nullptr || p.mask[row];
    int64_t position = row;
    if (p.mask != nullptr) {
      const int64_t before = p.before[row] - int32_t(plays);
      position = plays ? before : active + row - before;
    }
    p.order[position] = int32_t(row);
    p.owner[position] = plays ? 0 : -1;
    if (!plays) continue;
    const TreeCount count = tree_count_at(p.words, p.pairs, row);
    add_to(sum, count);
  }
  sum.gradient = block_reduce(sum.gradient, Sum(), int64_t(0), parts.scratch);
  sum.hessian = block_reduce(sum.hessian, Sum(), int64_t(0), parts.scratch);
  if (threadIdx.x == 0) add_count(&p.nodes[0].total, sum);
}

TILEWRIGHT_DEVICE bool may_split(const TreeGrowthParams& p, const TreeNode& node, int64_t depth) {
  return node.end - node.begin >= 2 && depth < p.max_depth &&
         real_sum(p, node.total).hessian >= 2 * p.rules.min_child_weight;
}

// The root, from its sums.
inline __global__ void tree_root_kernel(TreeGrowthParams p) {
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  TreeNode node{};
  node.total = p.nodes[0].total;
  node.bounds = {-HUGE_VAL, HUGE_VAL};
  node.end = p.rows == 0 ? 0 : p.mask == nullptr ? int32_t(p.rows) : p.before[p.rows - 1];
  node.open = may_split(p, node, 0);
  node.slot = node.counted = node.open ? 0 : -1;
  node.sibling = -1;
  node.feature = -1;
  p.nodes[0] = node;
}

inline __global__ void tree_sides_kernel(TreeGrowthParams p) {
  for (int64_t position : grid_stride(p.rows)) {
    const int32_t owner = p.owner[position];
    int32_t side = 0;
    if (p.is_at_work(owner)) {
      const TreeNode& node = p.nodes[owner];
      if (node.feature >= 0) side = goes_left(p, node, p.order[position]);
    }
    p.sides[position] = side;
  }
}

// The children of each node of the level; of one that is not split they stand for nothing.
inline __global__ void tree_children_kernel(TreeGrowthParams p) {
  for (int64_t place : grid_stride(p.level_nodes())) {
    const int64_t id = p.first_node() + place;
    const TreeNode node = p.nodes[id];
    TreeNode low{}, high{};
    low.slot = low.counted = low.sibling = low.feature = -1;
    high.slot = high.counted = high.sibling = high.feature = -1;
    if (node.feature >= 0) {
      const int32_t first = node.begin == 0 ? 0 : p.before[node.begin - 1];
      const int32_t middle = node.begin + p.before[node.end - 1] - first;
      low.begin = node.begin, low.end = middle;
      high.begin = middle, high.end = node.end;
      low.total = node.left;
      high.total = {node.total.gradient - node.left.gradient,
                    node.total.hessian - node.left.hessian};
      low.bounds = high.bounds = node.bounds;
      const int sign = p.monotone == nullptr ? 0 : int(p.monotone[node.feature]);
      if (sign != 0) {
        const double between = (leaf_weight(real_sum(p, low.total), p.rules, node.bounds) +
                                leaf_weight(real_sum(p, high.total), p.rules, node.bounds)) /
                               2;
        if (sign > 0) {
          low.bounds.upper = high.bounds.lower = between;
        } else {
          low.bounds.lower = high.bounds.upper = between;
        }
      }
      low.open = may_split(p, low, p.level + 1);
      high.open = may_split(p, high, p.level + 1);
      if (low.open || high.open) {
        // The smaller child is counted afresh, the other is what remains of the parent.
        const bool low_is_small = middle - node.begin <= node.end - middle;
        const int32_t fresh = node.slot + int32_t(p.level_nodes());
        low.slot = low_is_small ? fresh : node.slot;
        high.slot = low_is_small ? node.slot : fresh;
        low.counted = high.sibling = low_is_small ? fresh : -1;
        high.counted = low.sibling = low_is_small ? -1 : fresh;
      }
    }
    p.nodes[2 * id + 1] = low;
    p.nodes[2 * id + 2] = high;
  }
}

// Rows to their children, in their order.
inline __global__ void tree_move_kernel(TreeGrowthParams p) {
  for (int64_t position : grid_stride(p.rows)) {
    int32_t owner = p.owner[position];
    int64_t to = position;
    if (p.is_at_work(owner) && p.nodes[owner].feature >= 0) {
      const int32_t begin = p.nodes[owner].begin, middle = p.nodes[2 * owner + 1].end;
      const bool left = p.sides[position] != 0;
      const int64_t lefts = p.before[position] - int32_t(left) -  // of the node, before this one
                            (begin == 0 ? 0 : p.before[begin - 1]);
      to = left ? begin + lefts : middle + (position - begin - lefts);
      owner = 2 * owner + (left ? 1 : 2);
    }
    p.next_order[to] = p.order[position];
    p.next_owner[to] = owner;
  }
}

template <class T>
struct TreeFineParams {
  const T *gradients, *hessians;
};

// Adds what words are too coarse for to the leaves' sums. Where a warp's rows are all of one leaf,
// they are added together first.
template <class T>
__global__ void tree_fine_kernel(TreeGrowthParams p, TreeFineParams<T> values) {
  const int lane = threadIdx.x % kLanes;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x - lane; first < p.rows;
       first += step) {
    const int64_t position = first + lane;
    const int32_t owner = position < p.rows ? p.owner[position] : -1;
    TreeCount count{0, 0};
    if (owner >= 0) {
      const TreeSum row = tree_row(values.gradients, values.hessians, p.order[position]);
      count = tree_pair(row.gradient, row.hessian, p.scales->fine_gradient, p.scales->fine_hessian);
    }
    const int32_t of_first = __shfl_sync(0xffffffff, owner, 0);
    if (__all_sync(0xffffffff, owner == of_first)) {
      count.gradient = warp_reduce(count.gradient, Sum());
      count.hessian = warp_reduce(count.hessian, Sum());
      if (lane != 0) continue;
    }
    if (owner >= 0) add_count(&p.nodes[owner].fine, count);
  }
}

struct TreeOutputs {
  int32_t *feature, *code;  // (nodes,)
  bool* default_left;
  double *weight, *gain, *cover;
  int32_t* leaf;  // (rows,)
};

// One block: sums go up the tree, then every node answers.
inline __global__ void tree_answer_kernel(TreeGrowthParams p, TreeOutputs out) {
  for (int64_t level = p.max_depth - 1; level >= 0; --level) {
    const int64_t first = (int64_t(1) << level) - 1;
    for (int64_t id = first + threadIdx.x; id < 2 * first + 1; id += blockDim.x) {
      if (p.nodes[id].feature < 0) continue;
      const TreeCount left = p.nodes[2 * id + 1].fine, right = p.nodes[2 * id + 2].fine;
      p.nodes[id].fine = {left.gradient + right.gradient, left.hessian + right.hessian};
    }
    __syncthreads();
  }
  const int64_t nodes = (int64_t(2) << p.max_depth) - 1;
  for (int64_t id = threadIdx.x; id < nodes; id += blockDim.x) {
    const TreeNode node = p.nodes[id];
    const bool exists = id == 0 || node.begin < node.end;
    const TreeSum sum =
        real_sum(node.fine, p.scales->fine_gradient_unit, p.scales->fine_hessian_unit);
    out.feature[id] = node.feature;
    out.code[id] = node.code;
    out.default_left[id] = node.default_left != 0;
    out.weight[id] = exists ? leaf_weight(sum, p.rules, node.bounds) : 0;
    out.gain[id] = node.gain;
    out.cover[id] = exists ? sum.hessian : 0;
  }
}

// Every row walks to its leaf, those that take no part too.
inline __global__ void tree_leaf_kernel(TreeGrowthParams p, TreeOutputs out) {
  for (int64_t row : grid_stride(p.rows)) {
    int32_t id = 0;
    while (p.nodes[id].feature >= 0) id = 2 * id + (goes_left(p, p.nodes[id], row) ? 1 : 2);
    out.leaf[row] = id;
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
