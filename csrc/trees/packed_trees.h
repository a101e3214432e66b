// Trees as the CPU walks them: checked and packed once, walked as often as wanted.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "tilewright/trees/predict_args.h"
#include "tilewright/trees/predict_cpu.h"
#include "tilewright/trees/tree_check.h"

namespace tilewright {

class PackedTrees {
 public:
  // Arrays that are no trees over so many features are an error. The arrays are kept, not copied
  // where they are contiguous: they must not be written to afterwards.
  PackedTrees(const TreeArrays& arrays, int64_t features);

  // The sum of each row's leaves, and of `base` (outputs,) float32, contiguous, where defined:
  // (N, outputs). x: (N, features), floating, on the CPU.
  at::Tensor predict(const at::Tensor& x, const at::Tensor& base = {}) const;

 private:
  TreePointers pointers() const;
  void add(TreeWalk& walk, int64_t tree, int64_t first);
  void add_full(const PackedTree& packed, int64_t first);
  void place(const PackedTree& packed, int64_t first, int64_t node, int64_t at, int32_t depth);
  void add_linked(int64_t first);
  uint32_t place_of(int64_t node) const;

  int64_t features_;
  at::Tensor feature_, threshold_, left_, right_, default_left_, value_, tree_ptr_, tree_output_,
      category_ptr_, categories_;
  bool vectors_;  // leaves, whatever their length: tree_output then says nothing
  int64_t values_, outputs_, steps_ = 0;
  // What is read for every node: asking the tensors each time takes longer than the walk.
  const int32_t *all_left_, *all_right_, *all_features_;
  const float *all_thresholds_, *all_values_;
  const bool* all_defaults_;
  std::vector<PackedTree> trees_;
  std::vector<float> thresholds_, leaves_;
  std::vector<uint32_t> places_;
  std::vector<LinkedNode> linked_;
  // Of the tree at work.
  const std::vector<std::pair<int32_t, int32_t>>* order_ = nullptr;  // node, depth
};

}  // namespace tilewright
