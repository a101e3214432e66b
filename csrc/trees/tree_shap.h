// Exact SHAP values of tree ensembles that stand in arrays, for C++ users.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// What each feature adds to each row's raw scores: the Shapley values of the game in which a
// feature that is not in the set is averaged over (path-dependent TreeSHAP: Lundberg, Erion and
// Lee, arXiv:1802.03888). At a node whose feature is not in the set, a row goes both ways, in the
// shares that the children have of their covers' sum.
//
// x, feature, threshold, left, right, default_left, value, tree_ptr, tree_output, num_outputs,
// category_ptr, categories: as in predict_trees (predict_trees.h); values of leaves must be finite.
// cover: (M,) float32, the weight of the training rows that came to a node: finite, not negative,
//        and positive for at least one of two siblings. A root's is not read.
// Returns (N, num_outputs, F + 1) float32, summed in float64; the last column is the expected
// score, the same for all rows. A row's F + 1 numbers add up to what predict_trees answers. The
// same bits for any number of threads. Arrays that are no trees, or covers that are none, are an
// error on the CPU that names tree and node. Memory beside the result: for each thread 1 KB for
// each feature that trees ask for, and 1 KB (deep trees: less) times d u / 2 for a tree of depth d
// with at most u features on a path; where d u / 2 is beyond 2^22, an error.
TILEWRIGHT_API at::Tensor tree_shap(const at::Tensor& x, const at::Tensor& feature,
                                    const at::Tensor& threshold, const at::Tensor& left,
                                    const at::Tensor& right, const at::Tensor& default_left,
                                    const at::Tensor& value, const at::Tensor& cover,
                                    const at::Tensor& tree_ptr, const at::Tensor& tree_output,
                                    int64_t num_outputs,
                                    const std::optional<at::Tensor>& category_ptr = std::nullopt,
                                    const std::optional<at::Tensor>& categories = std::nullopt);

// What pairs of features add beyond what each adds alone: Shapley interaction values, halved
// between (i, j) and (j, i) (the paper's section 4). On the diagonal stands what remains of a
// feature's own value, so that rows and columns add up to tree_shap's values.
//
// Arguments and errors are tree_shap's. Returns (N, num_outputs, F + 1, F + 1) float32, symmetric;
// of the last row and column only the corner is not 0, the expected score. A row costs as many
// times tree_shap's work as trees ask for features.
TILEWRIGHT_API at::Tensor tree_shap_interactions(
    const at::Tensor& x, const at::Tensor& feature, const at::Tensor& threshold,
    const at::Tensor& left, const at::Tensor& right, const at::Tensor& default_left,
    const at::Tensor& value, const at::Tensor& cover, const at::Tensor& tree_ptr,
    const at::Tensor& tree_output, int64_t num_outputs,
    const std::optional<at::Tensor>& category_ptr = std::nullopt,
    const std::optional<at::Tensor>& categories = std::nullopt);

}  // namespace tilewright
