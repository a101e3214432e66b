// What boosting is measured by on evaluation sets.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "tilewright/core/export.h"

namespace tilewright::trees {

// What scores are held against.
struct Targets {
  at::Tensor labels;   // (N,) float32; of several columns (K, N), contiguous
  at::Tensor weights;  // (N,) float32, or undefined
  at::Tensor
      queries;  // (Q + 1,) int64: rows [queries[q], queries[q + 1]) are query q; or undefined

  // (N,): what one output is held against.
  at::Tensor of_output(int64_t k) const { return labels.dim() == 2 ? labels[k] : labels; }
};

struct Metric {
  // scores: (K, N) float32; predictions: (N, K), the scores behind the objective's link.
  using Value = std::function<double(const at::Tensor& scores, const at::Tensor& predictions,
                                     const Targets& targets)>;

  std::string name;
  bool greater_is_better = false;
  Value value;

  bool is_better(double a, double b) const { return greater_is_better ? a > b : a < b; }
};

// One of "rmse", "mae", "logloss" (of two classes or more), "error" (the share of wrong classes),
// "auc" (two classes), "ndcg" or "ndcg@10" (of queries; cut off after 10 rows; gains are
// 2^label - 1 with `exp_gain`). All are weighted means, or of weighted pairs; of labels of
// several columns, which rmse and mae take, over rows and columns.
TILEWRIGHT_API Metric make_metric(const std::string& name, bool exp_gain = true);

// Scores (K, N) to predictions (N, K) by an objective's link.
TILEWRIGHT_API at::Tensor apply_link(const std::string& link, const at::Tensor& scores);

}  // namespace tilewright::trees
