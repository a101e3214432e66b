// A histogram, and a whole tree, in one call, for C++ users.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// Sums of gradients and hessians by node, feature and code, as integers: they have no order, so the
// result is the same bits for any number of threads, on the CPU and on CUDA; and they subtract
// without error, so the histogram of one of two children follows from the other's.
//
// codes:     (N, F) uint8 with 256 codes, or int16 with num_codes, as quantize_features returns.
// gradients: (N,), floating, finite.
// hessians:  (N,), of the same dtype, finite and not negative.
// node:      (N,) int32 in [0, num_nodes), or -1 for rows that are left out; null: all 0.
// num_codes: 256 for uint8; 2 to 32768 for int16.
// Returns sums (num_nodes, F, num_codes, 2) int64, and units (2,) float64, powers of two: the sum
// of the gradients is sums[..., 0] * units[0], that of the hessians sums[..., 1] * units[1]. Each
// value is rounded to a unit once, which is at most 2^-(60 - log2 N) of the largest value.
// What is not allowed in the data is an error on the CPU. On CUDA a gradient that is not finite
// counts as 0, so does a hessian that is not finite or is negative; a code that does not exist
// counts as the last, a row of a node that does not exist is left out.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> tree_histogram(
    const at::Tensor& codes, const at::Tensor& gradients, const at::Tensor& hessians,
    const std::optional<at::Tensor>& node = std::nullopt, int64_t num_nodes = 1,
    int64_t num_codes = 256);

// A tree of second-order boosting, grown level by level (docs/trees.md says by which rules). On
// CUDA the host asks the device for nothing, so a stream or a CUDA graph may hold the whole call.
// The same bits come from the CPU and from CUDA.
//
// codes, gradients, hessians, num_codes: as above; the last code stands for missing.
// bins:             (F,) int32, how many codes of a feature are in use, missing left out: count + 1
//                   of feature_cuts.
// max_depth:        1 to 16 levels of splits.
// reg_lambda:       L2 of leaves, not negative. reg_alpha: L1, not negative.
// gamma:            what a split must gain, not negative.
// min_child_weight: the least hessian of a child, not negative.
// max_delta_step:   the greatest answer of a leaf, 0: any.
// rows:             (N,) bool, those that take part; null: all.
// columns:          (F,) bool, the features that may split; null: all.
// monotone:         (F,) int8: +1 where answers must not fall with the feature, -1 where they must
//                   not rise, 0; or null.
// Returns, for the M = 2^(max_depth + 1) - 1 places of a full tree, in which the children of place
// i are 2i + 1 and 2i + 2:
//   feature      (M,) int32, -1 where a place is a leaf or is not reached,
//   code         (M,) int32: rows whose code is at most this go left,
//   default_left (M,) bool: so do those of missing values,
//   weight       (M,) float64: answers before the learning rate, of inner nodes too,
//   gain         (M,) float64: of splits, 0 elsewhere,
//   cover        (M,) float64: sums of hessians,
// and leaf (N,) int32: the place where each row ends, of those that take no part too. What is not
// reached has 0 in all but feature.
// What is not allowed in the data is an error on the CPU and has the rules of tree_histogram on
// CUDA; bins outside [0, num_codes) count as the nearest that are inside. CUDA holds
// 2^(max_depth - 1) histograms of F * num_codes * 16 bytes at once, at most 8 GiB of them.
TILEWRIGHT_API
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
grow_tree(const at::Tensor& codes, const at::Tensor& bins, const at::Tensor& gradients,
          const at::Tensor& hessians, int64_t num_codes = 256, int64_t max_depth = 6,
          double reg_lambda = 1, double reg_alpha = 0, double gamma = 0,
          double min_child_weight = 1, double max_delta_step = 0,
          const std::optional<at::Tensor>& rows = std::nullopt,
          const std::optional<at::Tensor>& columns = std::nullopt,
          const std::optional<at::Tensor>& monotone = std::nullopt);

}  // namespace tilewright
