// AdaBoost over trees for C++ users: fit, predict, save, load.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/trees/forest.h"

namespace tilewright::trees {

struct AdaBoostOptions {
  AdaBoostOptions() {
    tree.max_depth = 1;
    tree.max_bin = 255;
  }
  ForestTreeOptions tree;  // stumps at first; for values a depth of 3 is common
  int64_t num_class = 2;   // at most 2^15; 0: values, by AdaBoost.R2
  int64_t n_estimators = 50;
  double learning_rate = 1;
  std::string loss = "linear";  // of values: "linear", "square" or "exponential"
  // Of classes: trees see rows drawn in proportion to their weights, as the original has it, not
  // weighed rows. Values are always drawn.
  bool resample = false;
  int64_t seed = 0;
};

// Freund and Schapire's boosting: for classes SAMME (Zhu, Zou, Rosset and Hastie, "Multi-class
// AdaBoost", 2009), for values R2 (Drucker, "Improving regressors using boosting techniques",
// 1997). Weights and stopping rules are scikit-learn's. Features are quantised once.
class TILEWRIGHT_API AdaBoost {
 public:
  explicit AdaBoost(const AdaBoostOptions& options);

  // x: (N, F) floating, NaN missing; y: (N,) whole numbers in [0, num_class), or values; weight:
  // (N,), or undefined. A first tree that is no better than chance is an error.
  void fit(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight = {},
           const TreeCallback& after_tree = nullptr);

  // (N, num_class) probabilities; of values (N, 1), the weighted median of the trees. float32.
  at::Tensor predict(const at::Tensor& x) const;

  // Classes: leaves are one-hot vectors times the tree's weight, scaled so that softmax makes
  // probabilities of their sum. Values: tree t answers in column t, and weighted_median makes
  // predictions of the columns.
  c10::intrusive_ptr<TreeEnsemble> ensemble() const;

  const EnsembleArrays& arrays() const { return arrays_; }
  at::Tensor base_score() const { return base_score_; }  // (K,), or (trees,) of 0
  // Of each tree kept: its weight and its error.
  const std::vector<double>& estimator_weights() const { return weights_; }
  const std::vector<double>& estimator_errors() const { return errors_; }
  // Whether sample weights grew beyond what numbers hold, which ends fitting.
  bool overflowed() const { return overflowed_; }

  // The fitted model in a file: it predicts the same bits. What is no such file is an error that
  // names the field.
  void save(const std::string& path) const;
  static AdaBoost load(const std::string& path);

 private:
  AdaBoostOptions options_;
  int64_t num_features_ = 0;
  EnsembleArrays arrays_;  // undefined before fit
  at::Tensor base_score_;
  std::vector<double> weights_, errors_;
  bool overflowed_ = false;
};

// Of each row the first of the ascending answers up to which at least half the weight lies.
// answers: (N, T) float32; weights: (T,) float64. Returns (N,).
TILEWRIGHT_API at::Tensor weighted_median(const at::Tensor& answers, const at::Tensor& weights);

}  // namespace tilewright::trees
