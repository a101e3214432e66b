// What the CPU kernel of forests is called with: one tree by one thread, on quantised features.
#pragma once
#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

enum class ForestCriterion : int32_t { kGini, kEntropy, kSquared };

// What a node knows of its rows, as integers, so that sums have no order.
enum class ForestStats : int32_t {
  // Two classes of whole weights, of less than 2^21 in all: a word of three numbers, from the low
  // end the rows, their weight, and that of class 1.
  kPacked,
  kClasses,  // of each class the weight; then the rows
  kValues,   // of each output weight times value; then the weight, and the rows
};
inline constexpr int kForestFieldBits = 21;

using ForestLabel = int16_t;
inline constexpr int64_t kMostForestClasses = int64_t(1) << 15;

struct ForestTable {
  const void* codes;  // (N, stride) uint8_t, or uint16_t where `wide`
  int64_t stride, features;
  bool wide;
  int32_t missing;            // the code of missing values
  int64_t num_codes;          // missing included
  const int32_t* bins;        // (F,): how many of the codes a feature uses, missing left out
  const float *least, *most;  // (F, max_bin): the values of each bin
  int64_t max_bin;
  const ForestLabel* labels;       // (N,): classes, or null
  const double* values;            // (N, outputs): less the centre, or null
  int64_t outputs;                 // classes or values of a leaf
  const double* centre;            // (outputs,): added to the means of values, or null
  double weight_unit, value_unit;  // of the integers; value_unit: of weight times value
};

struct ForestRules {
  ForestStats stats;
  ForestCriterion criterion;
  bool random_thresholds;  // one threshold a feature, drawn
  int64_t features_per_node;
  int64_t max_depth, max_leaves;  // 0: any; with max_leaves the best leaf splits first
  int64_t min_split, min_leaf;    // rows
  double min_weight;              // of a leaf, in units
  double min_gain;                // min_impurity_decrease
  const double* xlogx;            // of 0, 1, ...: of kPacked with entropy
  uint64_t seed;
};

// Runs body(task) for each task, in any order.
using ForestTask = void (*)(void* body, int64_t task);
using ForestParallel = void (*)(int64_t tasks, ForestTask task, void* body);

struct ForestSample {
  uint32_t tree;
  int32_t* rows;     // (count,): those that take part, ascending at first
  int32_t* scratch;  // (count,), or null where trees have one split
  int64_t count;
  double total;             // their weight in units
  const int64_t* words;     // by row of the table: packed; the weight; or outputs + 2 words
  bool keep_rows;           // nodes' begin and end are wanted
  ForestParallel parallel;  // for the features of large nodes, or null
  int64_t tasks;            // at most at once
};

// A tree in the order of its making; the caller's arrays hold as many nodes as rows can make.
struct ForestNodes {
  int32_t *feature, *code, *left, *right;  // feature is -1 in leaves, as are left and right
  uint8_t* default_left;
  float* value;  // (nodes, outputs): shares of classes, or means; 0 where a node is split
  float *gain, *cover;
  int64_t *begin, *end;  // in sample.rows, where kept; else null
};

// Returns the number of nodes.
TILEWRIGHT_CPU_KERNEL(grow_forest_tree, int64_t(const ForestTable&, const ForestRules&,
                                                const ForestSample&, const ForestNodes&))

// The leaves that rows [begin, end) of the table reach; only where wanted[row] != 0, if given.
TILEWRIGHT_CPU_KERNEL(walk_forest_tree,
                      void(const ForestTable&, const ForestNodes&, const uint8_t* wanted,
                           int64_t begin, int64_t end, int32_t* leaves))

}  // namespace tilewright
