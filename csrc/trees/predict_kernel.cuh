// Prediction's device code: a thread walks its row through one tree after the other, in the order
// of the CPU's sums.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/trees/tree_categories.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

constexpr int kPredictThreads = 128;

template <class T>
struct PredictTreesParams {
  const T* x;
  int64_t row, column;  // strides in elements
  int64_t rows, features;
  const int32_t *feature, *left, *right;  // (nodes,), any numbers
  const float* threshold;
  const bool* default_left;
  const float* value;             // (nodes, values)
  int64_t nodes, values;          // 1, or as many as outputs
  bool vectors;                   // leaves, whatever their length: tree_output then says nothing
  const int64_t* tree_ptr;        // (trees + 1,), any numbers
  const int32_t* tree_output;     // (trees,), any numbers
  const int64_t* category_ptr;    // (nodes + 1,), any numbers; or null
  const int32_t* categories;      // (category_count,)
  int64_t trees, category_count;  // of categories of all nodes
  float* out;                     // (rows, outputs)
  int64_t outputs;
};

// The leaf of `row` among nodes [first, first + count), or -1 where the arrays are no tree: a node
// outside, a feature that x lacks, a threshold that is no number, a path longer than the tree.
template <class T>
TILEWRIGHT_DEVICE int64_t walk_tree(const PredictTreesParams<T>& p, const T* row, int64_t first,
                                    int64_t count) {
  int64_t at = 0;
  for (int64_t steps = 0; steps < count; ++steps) {
    const int64_t node = first + at;
    const int32_t left = ldg(p.left + node), right = ldg(p.right + node);
    if (left < 0 && right < 0) return node;
    const int32_t feature = ldg(p.feature + node);
    const float threshold = ldg(p.threshold + node);
    if (feature < 0 || feature >= p.features || threshold != threshold) return -1;
    const float x = float(to_accumulate(ldg(row + feature * p.column)));
    bool goes_left = x < threshold;
    if (p.category_ptr != nullptr) {
      const int64_t begin = max_of(ldg(p.category_ptr + node), int64_t(0));
      const int64_t end = min_of(ldg(p.category_ptr + node + 1), p.category_count);
      if (begin < end) goes_left = !is_among(p.categories, begin, end, x);
    }
    if (x != x) goes_left = p.default_left[node];
    at = goes_left ? left : right;
    if (at < 0 || at >= count) return -1;
  }
  return -1;
}

template <class T>
__global__ void predict_trees_kernel(PredictTreesParams<T> p) {
  for (int64_t r : grid_stride(p.rows)) {
    const T* row = p.x + r * p.row;
    float* const out = p.out + r * p.outputs;
    for (int64_t k = 0; k < p.outputs; ++k) out[k] = 0;
    bool whole = true;
    for (int64_t t = 0; t < p.trees && whole; ++t) {
      const int64_t first = ldg(p.tree_ptr + t), end = ldg(p.tree_ptr + t + 1);
      const int64_t output = p.vectors ? 0 : ldg(p.tree_output + t);
      whole = first >= 0 && first < end && end <= p.nodes && output >= 0 && output < p.outputs;
      if (!whole) break;
      const int64_t leaf = walk_tree(p, row, first, end - first);
      whole = leaf >= 0;
      if (!whole) break;
      const float* value = p.value + leaf * p.values;
      if (p.values == 1) {
        out[output] += ldg(value);
      } else {
        for (int64_t k = 0; k < p.values; ++k) out[k] += ldg(value + k);
      }
    }
    if (whole) continue;
    for (int64_t k = 0; k < p.outputs; ++k) out[k] = NAN;
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
