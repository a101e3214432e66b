// Log-sum-exps of similarities for C++ users: what contrastive losses are made of. Tiles of scores
// are made, added up and forgotten, forward and backward; the matrix of all is nowhere.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

// query: (N, D), float64, float32, float16 or bfloat16. key: (M, D), of query's dtype.
// exclude: (N,) int64: query i has no part in the keys [exclude[i], exclude[i] + exclude_count);
//          -1: in all of them. On the CPU an index out of range is an error, on CUDA it excludes
//          what there is.
// Returns (N,), float64 of float64 and else float32:
//
//   lse[i] = log sum over j of exp(scale * query[i] . key[j])
//
// -inf, without a gradient, where no key is left. Differentiable in query and key, twice (the
// second derivatives are those of a composition that stores all scores). A learnt temperature
// multiplies the query.
TILEWRIGHT_API at::Tensor contrastive_lse(const at::Tensor& query, const at::Tensor& key,
                                          const std::optional<at::Tensor>& exclude = {},
                                          double scale = 1, int64_t exclude_count = 1);

// The same in both directions at once, for losses such as CLIP's: (N,), and (M,) of sums over i.
// without_diagonal: query i and key i are no pair.
TILEWRIGHT_API std::tuple<at::Tensor, at::Tensor> contrastive_lse_both(
    const at::Tensor& query, const at::Tensor& key, double scale = 1,
    bool without_diagonal = false);

// contrastive_lse without key i for query i.
TILEWRIGHT_API at::Tensor contrastive_lse_off_diagonal(const at::Tensor& query,
                                                       const at::Tensor& key, double scale = 1);

// Of views (N, D) among themselves, none with the exclude_count consecutive ones of its own group
// (itself, where that is 1): (N,). Half the work of contrastive_lse.
TILEWRIGHT_API at::Tensor contrastive_lse_self(const at::Tensor& views, double scale = 1,
                                               int64_t exclude_count = 1);

}  // namespace tilewright
