// Where features are cut into bins for tree growing, for C++ users.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// Weighted quantiles of each feature, as histogram-based boosting uses them.
//
// x:             (N, F), floating, any strides; NaN is missing. Values are read as float32.
// sample_weight: (N,), floating, finite and not negative; null: all 1.
// max_bin:       bins of a feature at most, 2 to 32767; missing values do not count.
// Returns cuts (F, max_bin) float32, ascending, padded with +infinity, and count (F,) int32, how
// many of them there are (at most max_bin - 1). A value falls into bin b where b cuts are at most
// it. A feature of no more than max_bin different values gets a bin for each, cut in the middle;
// else bins hold about equal weights, and values that weigh more than that have one of their own.
// Of more than 2^18 rows so many are looked at, spread evenly. Weights that are not allowed are an
// error on the CPU and count as 0 on CUDA; the cuts are the same on both.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> feature_cuts(
    const at::Tensor& x, const std::optional<at::Tensor>& sample_weight = std::nullopt,
    int64_t max_bin = 255);

// Each value's bin: (N, F) uint8 where cuts.size(1) <= 255, with 255 for missing; else int16, with
// cuts.size(1) for missing.
//
// x: (N, F) as above; cuts (F, max_bin) float32 and count (F,) int32 of feature_cuts. A count
// outside [0, max_bin) is an error on the CPU, and the nearest that is inside on CUDA.
TILEWRIGHT_API at::Tensor quantize_features(const at::Tensor& x, const at::Tensor& cuts,
                                            const at::Tensor& count);

}  // namespace tilewright
