// The arrays of an ensemble while it grows.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "tilewright/trees/tree_grower.h"

namespace tilewright::trees {

// Trees in the form that predict_trees takes, all tensors on the CPU.
struct EnsembleArrays {
  at::Tensor feature, threshold, left, right, default_left, value, tree_ptr, tree_output;
  at::Tensor gain, cover;               // (M,) float32: of splits, of nodes
  at::Tensor category_ptr, categories;  // undefined where no node has any
  static std::optional<at::Tensor> given(const at::Tensor& tensor) {
    return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
  }
  int64_t num_outputs = 1;
};

class ArraysBuilder {
 public:
  explicit ArraysBuilder(int64_t num_outputs) : num_outputs_(num_outputs) {}

  // cuts: (F, max_bin); returns what each node answers, times the learning rate.
  std::vector<float> add(const GrownTree& tree, const at::Tensor& cuts, double learning_rate,
                         int64_t output);
  // The first `trees` trees, or all.
  EnsembleArrays arrays(int64_t trees = -1) const;
  // The trees [first, last) alone.
  EnsembleArrays slice(int64_t first, int64_t last) const;
  int64_t trees() const { return int64_t(tree_output_.size()); }

 private:
  int64_t num_outputs_;
  std::vector<int32_t> feature_, left_, right_, tree_output_;
  std::vector<float> threshold_, value_, gain_, cover_;
  std::vector<uint8_t> default_left_;
  std::vector<int64_t> tree_ptr_{0}, category_ptr_{0};
  std::vector<int32_t> categories_;
};

}  // namespace tilewright::trees
