// The rows that a round of boosting looks at: a share of all, or those of large gradients.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace tilewright::trees {

struct RowSampling {
  double subsample = 1;  // the share of rows that each round draws
  // Gradient-based one-side sampling (Ke et al., LightGBM, 2017): of all rows the share `top_rate`
  // of the greatest |gradient * hessian|, summed over outputs, and of the others a share of
  // `other_rate` of all rows, which count (1 - top_rate) / other_rate times. From round
  // 1 / learning_rate on, as LightGBM does.
  bool goss = false;
  double top_rate = 0.2, other_rate = 0.1;

  bool goss_in(int64_t round, double learning_rate) const {
    return goss && double(round) >= std::floor(1 / learning_rate);
  }
  // Of the rows that are not at the top, the share that is drawn; each counts 1 / share times.
  double other_share() const { return std::min(other_rate / (1 - top_rate), 1.0); }
};

// (N,) float64: |gradient * hessian| summed over outputs, one after the other: ATen would choose an
// order of its own. gradients, hessians: (K, N).
at::Tensor goss_importance(const at::Tensor& gradients, const at::Tensor& hessians);

struct RowDraw {
  std::vector<int32_t> rows;  // ascending; empty for all
  at::Tensor factor;          // (N,) float32, by which rows count; undefined: each once
};

// gradients, hessians: (K, N); those of rows that stand for others are multiplied in place. The
// draw depends on seed and round alone.
RowDraw draw_rows_of_round(const RowSampling& sampling, double learning_rate, int64_t round,
                           uint64_t seed, at::Tensor& gradients, at::Tensor& hessians);

}  // namespace tilewright::trees
