// The arrays of an ensemble while it grows.
#pragma once
#include <ATen/core/Tensor.h>

#include <cmath>
#include <vector>

#include "tilewright/trees/tree_grower.h"

namespace tilewright::trees {

// Trees in the form that predict_trees takes, all tensors on the CPU. value is (M,), or
// (M, num_outputs) of leaves that are vectors.
struct EnsembleArrays {
  at::Tensor feature, threshold, left, right, default_left, value, tree_ptr, tree_output;
  at::Tensor gain, cover;  // (M,) float32: of splits, of nodes; or undefined
  int64_t num_outputs = 1;
  at::Tensor category_ptr, categories;  // or undefined: no node has categories
};

// A threshold behind the last cut: all that is there goes left, what is missing right. No threshold
// says so of +infinity too, which is not less than anything; so the children change places, and
// below -infinity lies nothing: what is missing goes left, all that is there right.
inline bool asks_what_is_missing(float threshold) { return !(threshold < HUGE_VALF); }

class ArraysBuilder {
 public:
  // `vectors`: leaves have an entry for each output.
  explicit ArraysBuilder(int64_t num_outputs, bool vectors = false)
      : num_outputs_(num_outputs), vectors_(vectors) {}
  // Begins with these trees; leaves are what theirs are.
  explicit ArraysBuilder(const EnsembleArrays& trees);

  // cuts: (F, max_bin), of trees that are split by codes; returns what each node answers, times the
  // learning rate: (nodes, tree.outputs). `output` is that of a tree whose leaves are numbers.
  std::vector<float> add(const GrownTree& tree, const at::Tensor& cuts, double learning_rate,
                         int64_t output);
  // Has what a tree's leaves answer count `factor` times.
  void scale(int64_t tree, double factor);
  // The first `trees` trees, or all.
  EnsembleArrays arrays(int64_t trees = -1) const;
  // The trees [first, last) alone; those of a list.
  EnsembleArrays slice(int64_t first, int64_t last) const;
  EnsembleArrays pick(const std::vector<int64_t>& trees) const;
  int64_t trees() const { return int64_t(tree_output_.size()); }
  bool vectors() const { return vectors_; }

 private:
  int64_t width() const { return vectors_ ? num_outputs_ : 1; }  // of a leaf

  int64_t num_outputs_;
  bool vectors_;
  std::vector<int32_t> feature_, left_, right_, tree_output_;
  std::vector<float> threshold_, value_, gain_, cover_;
  std::vector<uint8_t> default_left_;
  std::vector<int64_t> tree_ptr_{0};
  // Of the nodes of the first trees; nodes beyond have no categories.
  std::vector<int64_t> category_ptr_{0};
  std::vector<int32_t> categories_;
};

}  // namespace tilewright::trees
