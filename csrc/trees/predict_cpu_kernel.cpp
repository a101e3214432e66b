// Rows through trees. Several rows walk side by side, since each step waits for a load.
#include <cstring>

#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/predict_lanes.h"
#include "tilewright/trees/tree_categories.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

// Groups of rows that go through one tree after the other, and the bytes they may take: they stay
// in a first-level cache.
constexpr int64_t kMostGroups = 8, kBlockBytes = 32 << 10;
constexpr int kTogether = 8;
// Up to so many rows leave most lanes idle: trees walk side by side in place of rows. One row takes
// 100 trees of depth 6 in 1.4 us in place of 7 to 8 (Xeon, AVX-512).
constexpr int64_t kFewRows = 4;

// A block of rows, feature by feature in groups of kTreeLanes, and its results.
struct Block {
  const float* x;
  int64_t stride, groups, rows;  // of a group in floats; rows of all groups
  float* out;
  int64_t out_row, out_output;  // strides
};

inline void add_leaf(const PredictParams& p, const PackedTree& tree, const float* value,
                     const Block& block, int64_t row) {
  float* out = block.out + row * block.out_row;
  if (p.values == 1) {
    out[tree.output * block.out_output] += *value;
  } else {
    for (int64_t k = 0; k < p.values; ++k) out[k] += value[k];
  }
}

template <int kGroups>
inline void walk_full(const PredictParams& p, const PackedTree& tree, const FullTree& nodes,
                      const Block& block, int64_t group) {
  alignas(64) int32_t at[kGroups * kTreeLanes];
  nodes.walk<kGroups>(block.x + group * block.stride, block.stride, at);
  const float* leaves = p.leaves + tree.leaves;
  if (p.values == 1) {
    float* out = block.out + tree.output * block.out_output + group * kTreeLanes;
    for (int i = 0; i < kGroups * kTreeLanes; ++i) out[i] += leaves[at[i]];
    return;
  }
  for (int i = 0; i < kGroups * kTreeLanes; ++i) {
    add_leaf(p, tree, leaves + at[i] * p.values, block, group * kTreeLanes + i);
  }
}

void walk_full(const PredictParams& p, const PackedTree& tree, const Block& block) {
  const FullTree nodes(p.thresholds + tree.nodes, p.places + tree.nodes, tree.depth);
  int64_t group = 0;
  for (; group + 2 <= block.groups; group += 2) walk_full<2>(p, tree, nodes, block, group);
  if (group < block.groups) walk_full<1>(p, tree, nodes, block, group);
}

// One row through kTrees full trees of one depth; their leaves are added in order.
template <int kTrees>
inline void walk_side_by_side(const PredictParams& p, const PackedTree* trees, const Block& block,
                              int64_t row) {
  const float* x = block.x + row;
  const float* thresholds[kTrees];
  const uint32_t* places[kTrees];
  uint32_t at[kTrees];
  for (int j = 0; j < kTrees; ++j) {
    thresholds[j] = p.thresholds + trees[j].nodes;
    places[j] = p.places + trees[j].nodes;
    at[j] = 1;
  }
  for (int level = 0; level < trees[0].depth; ++level) {
    for (int j = 0; j < kTrees; ++j) {
      const uint32_t place = places[j][at[j]];
      const float value = x[place & ~kMissingLeft];
      const bool left =
          (value < thresholds[j][at[j]]) | ((value != value) & ((place & kMissingLeft) != 0));
      at[j] = 2 * at[j] + !left;
    }
  }
  for (int j = 0; j < kTrees; ++j) {
    const int64_t leaf = int64_t(at[j]) - (int64_t(1) << trees[j].depth);
    add_leaf(p, trees[j], p.leaves + trees[j].leaves + leaf * p.values, block, row);
  }
}

// From tree `first` on; returns how many trees were walked.
int64_t walk_few_rows(const PredictParams& p, int64_t first, const Block& block) {
  const PackedTree* trees = p.trees + first;
  int64_t alike = 1;
  while (alike < kTogether && first + alike < p.tree_count && trees[alike].full &&
         trees[alike].depth == trees[0].depth) {
    ++alike;
  }
  const bool together = alike == kTogether;
  for (int64_t row = 0; row < block.rows; ++row) {
    together ? walk_side_by_side<kTogether>(p, trees, block, row)
             : walk_side_by_side<1>(p, trees, block, row);
  }
  return together ? kTogether : 1;
}

template <bool kCategories>
void walk_linked(const PredictParams& p, const PackedTree& tree, const Block& block) {
  const LinkedNode* nodes = p.linked_nodes + tree.nodes;
  for (int64_t row = 0; row < block.groups * kTreeLanes; row += kTogether) {
    const float* x = block.x + row / kTreeLanes * block.stride + row % kTreeLanes;
    int32_t at[kTogether] = {};
    for (bool moved = true; moved;) {
      moved = false;
      for (int j = 0; j < kTogether; ++j) {
        const LinkedNode node = nodes[at[j]];
        if (node.left == at[j]) continue;
        moved = true;
        const float value = x[(node.place & ~kMissingLeft) + j];
        const bool missing_left = (value != value) & ((node.place & kMissingLeft) != 0);
        bool left = (value < node.threshold) | missing_left;
        if (kCategories) {
          const int64_t begin = p.category_ptr[node.source], end = p.category_ptr[node.source + 1];
          if (begin < end)
            left = value != value ? missing_left : !is_among(p.categories, begin, end, value);
        }
        at[j] = node.left + !left;
      }
    }
    for (int j = 0; j < kTogether; ++j) {
      add_leaf(p, tree, p.value + int64_t(nodes[at[j]].source) * p.values, block, row + j);
    }
  }
}

void walk(const PredictParams& p, const Block& block) {
  for (int64_t t = 0, walked = 1; t < p.tree_count; t += walked) {
    const PackedTree& tree = p.trees[t];
    walked = 1;
    if (tree.full && block.rows <= kFewRows) {
      walked = walk_few_rows(p, t, block);
    } else if (tree.full) {
      walk_full(p, tree, block);
    } else {
      p.category_ptr != nullptr ? walk_linked<true>(p, tree, block)
                                : walk_linked<false>(p, tree, block);
    }
  }
}

// The group's rows feature by feature; what lacks to a whole group is its last row again.
template <class T>
void take_group(const PredictParams& p, int64_t first, int64_t count, float* x) {
  const T* from[kTreeLanes];
  for (int lane = 0; lane < kTreeLanes; ++lane) {
    from[lane] = static_cast<const T*>(p.x) + (first + min_of<int64_t>(lane, count - 1)) * p.row;
  }
  for (int64_t f = 0; f < p.features; ++f, x += kTreeLanes) {
    for (int lane = 0; lane < kTreeLanes; ++lane) x[lane] = float(from[lane][f * p.column]);
  }
}

template <class T>
void predict(const PredictParams& p, int64_t begin, int64_t end) {
  const int64_t stride = p.features * kTreeLanes;
  const int64_t fits = kBlockBytes / max_of(stride * int64_t(sizeof(float)), int64_t(1));
  const int64_t most = min_of(max_of<int64_t>(fits, 1), kMostGroups);
  const int64_t groups_in_all = min_of(most, ceil_div(end - begin, int64_t(kTreeLanes)));
  const int64_t rows = groups_in_all * kTreeLanes;
  Buffer<float> x, out;
  x.resize(groups_in_all * stride);
  out.resize(rows * p.outputs);
  // Numbers are added to whole groups of one output, vectors to rows.
  const int64_t out_row = p.values == 1 ? 1 : p.outputs, out_output = p.values == 1 ? rows : 1;
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t count = min_of(rows, end - first);
    const int64_t groups = ceil_div(count, int64_t(kTreeLanes));
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t row = g * kTreeLanes;
      take_group<T>(p, first + row, min_of<int64_t>(count - row, kTreeLanes),
                    x.data() + g * stride);
    }
    std::memset(out.data(), 0, size_t(out.size()) * sizeof(float));
    walk(p, {x.data(), stride, groups, count, out.data(), out_row, out_output});
    float* to = p.out + first * p.outputs;
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t k = 0; k < p.outputs; ++k) {
        const float sum = out[row * out_row + k * out_output];
        *to++ = p.base == nullptr ? sum : sum + p.base[k];
      }
    }
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(predict_rows)(const PredictParams& params, int64_t begin, int64_t end) {
  dispatch_floating("predict_trees", params.dtype,
                    [&](auto tag) { predict<typename decltype(tag)::type>(params, begin, end); });
}

}  // namespace tilewright
