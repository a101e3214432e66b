// What the CPU kernels of prediction are called with: trees packed for walking.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

// Rows are walked so many at a time, side by side: a feature of all of them is one piece of memory,
// kTreeLanes floats from `feature * kTreeLanes` on. That number stands in a node as its place, and
// beside it where a missing value goes.
inline constexpr int kTreeLanes = 16;
inline constexpr uint32_t kMissingLeft = uint32_t(1) << 31;
inline constexpr int64_t kMostTreeFeatures = kMissingLeft / kTreeLanes - 1;

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
  // All levels are filled up: thresholds and places by node, where node 1 is the root and node i's
  // children are 2i and 2i + 1, and the values of the last level; else LinkedNodes.
  bool full;
  int64_t nodes;   // where its nodes begin; a full tree has 2^depth of them, at least kTreeLanes
  int64_t leaves;  // where the values of its last level begin, in floats
};

struct PredictParams {
  const void* x;
  c10::ScalarType dtype;
  int64_t row, column, features;  // strides in elements
  const PackedTree* trees;
  int64_t tree_count;
  const float* thresholds;  // of full trees
  const uint32_t* places;
  const float* leaves;
  const LinkedNode* linked_nodes;
  const float* value;           // (M, values)
  int64_t values, outputs;      // 1, or as many as outputs
  const int64_t* category_ptr;  // by source, or null
  const int32_t* categories;
  const float* base;  // (outputs,): added to all rows at the end, or null
  float* out;         // (N, outputs)
};

TILEWRIGHT_CPU_KERNEL(predict_rows, void(const PredictParams&, int64_t begin, int64_t end))

}  // namespace tilewright
