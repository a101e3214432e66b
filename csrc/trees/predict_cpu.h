// What the CPU kernels of prediction are called with: trees packed for walking.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

// A row is walked in copies side by side, so that a step is one comparison: one in which missing
// values are +infinity, which goes right; one in which they are -infinity, which goes left; and
// with categories one as it came. `place` is that of a node's feature in the copy that its default
// asks for.

// A node of a tree whose levels are all full: its children are 2i + 1 and 2i + 2.
struct FullNode {
  float threshold;
  uint32_t place;
};
// A node of any tree. Children stand side by side, leaves are their own children.
struct LinkedNode {
  float threshold;
  uint32_t place;
  int32_t left;    // the right child is the next; of a leaf itself
  int32_t source;  // of the node among the caller's
};

struct PackedTree {
  int32_t depth;
  int32_t output;
  bool full;       // FullNodes, and values of leaves by their place; else LinkedNodes
  int64_t nodes;   // where its nodes begin
  int64_t leaves;  // where the values of its last level begin, in floats
};

struct PredictParams {
  const void* x;
  c10::ScalarType dtype;
  int64_t row, column, features;  // strides in elements
  const PackedTree* trees;
  int64_t tree_count;
  const FullNode* full_nodes;
  const LinkedNode* linked_nodes;
  const float* leaves;          // of full trees
  const float* value;           // (M, values)
  int64_t values, outputs;      // 1, or as many as outputs
  const bool* default_left;     // by source
  const int64_t* category_ptr;  // by source, or null
  const int32_t* categories;
  float* out;  // (N, outputs)
};

TILEWRIGHT_CPU_KERNEL(predict_rows, void(const PredictParams&, int64_t begin, int64_t end))

}  // namespace tilewright
