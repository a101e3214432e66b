// Raw scores of tree ensembles that stand in arrays, for C++ users.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// The sum of each row's leaves, tree after tree in float32.
//
// x:            (N, F), floating, any strides; NaN is missing. Values are read as float32.
// feature:      (M,) int32, the feature a node asks for; of leaves it is not read.
// threshold:    (M,) float32, not NaN. A row goes left where its value is less.
// left, right:  (M,) int32, a node's children, counted from the first node of its tree; -1 in
//               leaves. Each node but a tree's first has one parent.
// default_left: (M,) bool, where a missing value goes.
// value:        (M,) float32, what a leaf adds to its tree's output; or (M, num_outputs), to all.
// tree_ptr:     (T + 1,) int64: tree t's nodes are [tree_ptr[t], tree_ptr[t + 1]), the first the
//               root.
// tree_output:  (T,) int32, in [0, num_outputs); not read where leaves are vectors.
// category_ptr: (M + 1,) int64, where a node's own categories begin in `categories`; null: no node
//               has any. A node that has some sends a row right whose value, a whole number, is one
//               of them, and another left.
// categories:   (C,) int32, ascending within a node.
// Returns (N, num_outputs) float32, the same bits on every machine. Arrays that are no trees, or
// ask for features that x lacks, are an error on the CPU. On CUDA a row that meets such a place
// scores NaN in all outputs: a child outside its tree, a path longer than the tree has nodes, a
// feature that x lacks, a threshold that is NaN, a tree_output outside [0, num_outputs), a tree_ptr
// that does not ascend or exceeds M. What no row meets is not looked at, nor whether categories
// ascend.
TILEWRIGHT_API at::Tensor predict_trees(
    const at::Tensor& x, const at::Tensor& feature, const at::Tensor& threshold,
    const at::Tensor& left, const at::Tensor& right, const at::Tensor& default_left,
    const at::Tensor& value, const at::Tensor& tree_ptr, const at::Tensor& tree_output,
    int64_t num_outputs, const std::optional<at::Tensor>& category_ptr = std::nullopt,
    const std::optional<at::Tensor>& categories = std::nullopt);

}  // namespace tilewright
