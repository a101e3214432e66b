// Where the trees of a forest grow: how rows are drawn, the memory of a thread, finished trees.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "tilewright/trees/forest_data.h"
#include "tilewright/trees/tree_arrays.h"

namespace tilewright::trees {

// Draws rows in proportion to their weights, with replacement.
class RowSampler {
 public:
  // weights: (N,), or null for equal ones.
  RowSampler(const double* weights, int64_t rows);
  // Adds to counts (N,) how often each row is drawn in `draws` draws of tree `tree`.
  void draw(int64_t draws, uint32_t tree, uint64_t seed, int32_t* counts) const;

 private:
  int64_t rows_;
  std::vector<uint64_t> ends_;  // of rows, on a scale of 2^62
  std::vector<int32_t> guide_;  // the first row that may hold the i-th of N equal parts
};

// A tree by itself.
struct ForestTree {
  std::vector<int32_t> feature, code, left, right;
  std::vector<uint8_t> default_left;
  std::vector<float> value, gain, cover;  // value: (nodes, outputs)
  std::vector<int64_t> begin, end;        // of leaves' rows, where kept
};

// Memory in which one thread grows trees.
class ForestWorkspace {
 public:
  ForestWorkspace(const ForestData& data, const ForestRules& rules, bool keep_rows);

  std::vector<int32_t> counts;  // (N,): to be filled in, for the first of these
  // Grows a tree from how often rows count.
  ForestTree grow_counts(uint32_t tree, ForestParallel parallel = nullptr, int64_t tasks = 1);
  // From weights (N,), whose sum is at most `most`.
  ForestTree grow_weights(uint32_t tree, const double* weights, double most,
                          ForestParallel parallel = nullptr, int64_t tasks = 1);
  // Of kClasses: from weights that are words() already, multiples of 2^-60 whose sum is near 1.
  ForestTree grow_words(uint32_t tree, ForestParallel parallel, int64_t tasks);
  int64_t* words() { return words_.data(); }  // (N,); a row of 0 takes no part
  const int32_t* rows() const { return rows_.data(); }
  // The leaf of each row that is wanted, of the last tree.
  const ForestNodes& nodes() const { return nodes_; }

 private:
  template <class Weight>
  ForestTree grow(uint32_t tree, double unit, double most, const Weight& weight,
                  ForestParallel parallel, int64_t tasks);
  ForestTree grow(const ForestTable& table, double most, ForestSample sample);
  const ForestData& data_;
  ForestRules rules_;
  bool keep_rows_;
  std::vector<int32_t> rows_, scratch_;
  std::vector<int64_t> words_;
  std::unique_ptr<int32_t[]> indices_;
  std::unique_ptr<uint8_t[]> default_left_;
  std::unique_ptr<float[]> floats_;
  std::unique_ptr<int64_t[]> places_;
  ForestNodes nodes_{};
};

// Trees one after the other in the form that predict_trees takes; values (M, outputs), or (M,) for
// one. Values are multiplied by `scale`.
EnsembleArrays forest_arrays(const std::vector<ForestTree>& trees, const at::Tensor& cuts,
                             int64_t outputs, double scale);

// Runs tasks by the threads at hand: a ForestParallel.
void forest_parallel(int64_t tasks, ForestTask task, void* body);

// n log n for n up to `most`: what entropies of whole weights are sums of.
std::vector<double> x_log_x_table(int64_t most);

}  // namespace tilewright::trees
