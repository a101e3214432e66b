// Contrastive losses for C++ users, over contrastive_lse: none stores the matrix of scores, and all
// give one number, float64 of float64 and else float32, that is differentiable twice. Features are
// float64, float32, float16 or bfloat16. Errors are c10::Error, before anything is computed; what
// only data can tell is an error on the CPU.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

// NT-Xent, SimCLR's loss (arXiv:2002.05709). first, second: (N, D), two views of N > 1 examples,
// which are normalised to length 1 here. With z their 2N rows and s = z z^T / temperature,
//
//   mean over i of [ log sum over j != i of exp(s[i, j]) - s[i, the other view of i] ]
TILEWRIGHT_API at::Tensor nt_xent(const at::Tensor& first, const at::Tensor& second,
                                  double temperature = 0.1);

// InfoNCE, CPC's loss (arXiv:1807.03748). query: (N, D); key: (M, D), M > 1: positives and
// negatives, of the batch, of other time steps or of a memory. positive: (N,) int64, the row of key
// that belongs to each query; row i to query i where there is none. With
// s = query key^T / temperature, of rows of length 1 where `normalize`,
//
//   mean over i of [ log sum over j of exp(s[i, j]) - s[i, positive[i]] ]
TILEWRIGHT_API at::Tensor info_nce(const at::Tensor& query, const at::Tensor& key,
                                   const std::optional<at::Tensor>& positive = {},
                                   double temperature = 0.1, bool normalize = true);

// The symmetric loss of CLIP (arXiv:2103.00020): the mean of info_nce(first, second) and
// info_nce(second, first), of one pass over the scores. first, second: (N, D), N > 1.
TILEWRIGHT_API at::Tensor clip_loss(const at::Tensor& first, const at::Tensor& second,
                                    double temperature = 0.07, bool normalize = true);

// Supervised contrastive loss (arXiv:2004.11362, its L_out). features: (N, D), normalised here;
// labels: (N,) int64. Examples of one label are each other's positives:
//
//   mean over i that have some of [ log sum over j != i of exp(s[i, j]) - mean over them of s ]
TILEWRIGHT_API at::Tensor supervised_contrastive(const at::Tensor& features,
                                                 const at::Tensor& labels,
                                                 double temperature = 0.1);

// The local-global objective of Deep InfoMax (arXiv:1808.06670) with InfoNCE as its bound. whole:
// (N, D), one vector for each example, N > 1; local: (N, L, D), those of its places. A place and
// its own example's vector belong together; the places of all others are negatives:
//
//   mean over n, l of [ log (exp(s) + sum over m != n and k of exp(whole[n] . local[m, k])) - s ]
//
// with s = whole[n] . local[n, l], all scores divided by the temperature.
TILEWRIGHT_API at::Tensor local_global_infomax(const at::Tensor& whole, const at::Tensor& local,
                                               double temperature = 1.0);

}  // namespace tilewright
