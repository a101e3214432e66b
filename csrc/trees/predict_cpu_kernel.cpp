// Rows through trees. Several rows walk side by side, since each step waits for a load.
#include <cstring>
#include <limits>

#include "tilewright/core/cpu/buffer.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/predict_cpu.h"
#include "tilewright/trees/tree_categories.h"

namespace tilewright {
inline namespace TILEWRIGHT_MACHINE {
namespace {

constexpr int64_t kBlockRows = 128;  // that go through one tree after the other
constexpr int kTogether = 8;

// A block of rows in their copies, and its results.
struct Block {
  const float* rows;
  int64_t stride, count;  // the count filled up to whole groups
  float* out;             // (count, outputs)
};

inline void add_leaf(const PredictParams& p, const PackedTree& tree, const float* value,
                     float* out) {
  if (p.values == 1) {
    out[tree.output] += *value;
  } else {
    for (int64_t k = 0; k < p.values; ++k) out[k] += value[k];
  }
}

void walk_full(const PredictParams& p, const PackedTree& tree, const Block& block) {
  const FullNode* nodes = p.full_nodes + tree.nodes;
  const float* leaves = p.leaves + tree.leaves;
  const int64_t inner = (int64_t(1) << tree.depth) - 1;
  for (int64_t r = 0; r < block.count; r += kTogether) {
    const float* rows = block.rows + r * block.stride;
    uint32_t at[kTogether] = {};
    for (int32_t level = 0; level < tree.depth; ++level) {
      for (int j = 0; j < kTogether; ++j) {
        const FullNode node = nodes[at[j]];
        at[j] = 2 * at[j] + 2 - (rows[j * block.stride + node.place] < node.threshold);
      }
    }
    for (int j = 0; j < kTogether; ++j) {
      add_leaf(p, tree, leaves + (at[j] - inner) * p.values, block.out + (r + j) * p.outputs);
    }
  }
}

template <bool kCategories>
void walk_linked(const PredictParams& p, const PackedTree& tree, const Block& block) {
  const LinkedNode* nodes = p.linked_nodes + tree.nodes;
  for (int64_t r = 0; r < block.count; r += kTogether) {
    const float* rows = block.rows + r * block.stride;
    int32_t at[kTogether] = {};
    for (bool moved = true; moved;) {
      moved = false;
      for (int j = 0; j < kTogether; ++j) {
        const LinkedNode node = nodes[at[j]];
        if (node.left == at[j]) continue;
        moved = true;
        const float* row = rows + j * block.stride;
        bool left = row[node.place] < node.threshold;
        if (kCategories) {
          const int64_t begin = p.category_ptr[node.source], end = p.category_ptr[node.source + 1];
          if (begin < end) {
            const float x = row[node.place % p.features + 2 * p.features];
            left = x != x ? p.default_left[node.source] : !is_among(p.categories, begin, end, x);
          }
        }
        at[j] = node.left + !left;
      }
    }
    for (int j = 0; j < kTogether; ++j) {
      add_leaf(p, tree, p.value + int64_t(nodes[at[j]].source) * p.values,
               block.out + (r + j) * p.outputs);
    }
  }
}

void walk(const PredictParams& p, const Block& block) {
  for (int64_t t = 0; t < p.tree_count; ++t) {
    const PackedTree& tree = p.trees[t];
    if (tree.full) {
      walk_full(p, tree, block);
    } else {
      p.category_ptr != nullptr ? walk_linked<true>(p, tree, block)
                                : walk_linked<false>(p, tree, block);
    }
  }
}

template <class T>
void predict(const PredictParams& p, int64_t begin, int64_t end) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const int64_t stride = p.features * (p.category_ptr == nullptr ? 2 : 3);
  Buffer<float> rows, out;
  rows.resize(kBlockRows * stride);
  out.resize(kBlockRows * p.outputs);
  const T* x = static_cast<const T*>(p.x);
  for (int64_t first = begin; first < end; first += kBlockRows) {
    const int64_t count = min_of(kBlockRows, end - first);
    const int64_t padded = ceil_div(count, int64_t(kTogether)) * kTogether;
    for (int64_t r = 0; r < padded; ++r) {
      const T* from = x + (first + min_of(r, count - 1)) * p.row;
      float* to = rows.data() + r * stride;
      for (int64_t f = 0; f < p.features; ++f) {
        const float value = float(from[f * p.column]);
        to[f] = value != value ? kInfinity : value;
        to[p.features + f] = value != value ? -kInfinity : value;
        if (p.category_ptr != nullptr) to[2 * p.features + f] = value;
      }
    }
    for (int64_t i = 0; i < padded * p.outputs; ++i) out[i] = 0;
    walk(p, {rows.data(), stride, padded, out.data()});
    std::memcpy(p.out + first * p.outputs, out.data(), size_t(count * p.outputs) * sizeof(float));
  }
}

}  // namespace
}  // namespace TILEWRIGHT_MACHINE

void TILEWRIGHT_ON_MACHINE(predict_rows)(const PredictParams& params, int64_t begin, int64_t end) {
  dispatch_floating("predict_trees", params.dtype,
                    [&](auto tag) { predict<typename decltype(tag)::type>(params, begin, end); });
}

}  // namespace tilewright
