// Gradient boosting for C++ users: fit, predict.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/trees/objectives.h"
#include "tilewright/trees/tree_arrays.h"
#include "tilewright/trees/tree_ensemble.h"

namespace tilewright::trees {

struct BoosterOptions {
  std::string objective = "squared_error";  // Objective::make
  int64_t num_class = 0;                    // of softmax
  double objective_param = 0;               // of tweedie and huber
  int64_t n_estimators = 100;               // rounds: a tree for each output
  double learning_rate = 0.1;
  int64_t max_bin = 255;
  TreeOptions tree;
  double subsample = 1;  // the share of rows that each round draws
  // Rounds without a better metric on the evaluation set after which fitting stops; 0: never. The
  // rounds up to the best are kept.
  int64_t early_stopping_rounds = 0;
  int64_t seed = 0;
};

// After each round: which it was, and the scores (K, N) of the evaluation set where there is one;
// true stops.
using RoundCallback = std::function<bool(int64_t round, const at::Tensor& evaluation_scores)>;

// Chen and Guestrin's second-order boosting (arXiv:1603.02754) on histograms, with gradients in
// fixed point: the same model whatever the number of threads.
class TILEWRIGHT_API Booster {
 public:
  // `objective`: in place of the one that the options name, such as a CustomObjective.
  explicit Booster(const BoosterOptions& options, std::shared_ptr<Objective> objective = nullptr);

  // x: (N, F) floating, NaN missing; y: (N,); weight: (N,), or undefined; eval_x, eval_y likewise,
  // or undefined. Labels that are not finite or that the objective does not take are an error.
  void fit(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight = {},
           const at::Tensor& eval_x = {}, const at::Tensor& eval_y = {},
           const RoundCallback& after_round = nullptr);

  // (N, K) float32: raw scores, or predictions of the objective's scale: means, probabilities. A
  // category that was not there in training is an error.
  at::Tensor scores(const at::Tensor& x) const;
  at::Tensor predict(const at::Tensor& x) const;

  // The fitted model by itself, to save, script or serve.
  c10::intrusive_ptr<TreeEnsemble> ensemble() const;

  const EnsembleArrays& arrays() const { return arrays_; }
  at::Tensor bin_counts() const { return bin_counts_; }  // (F,) int32; categories are one more
  at::Tensor base_score() const { return ensemble()->arrays()[8]; }  // (K,)
  const std::vector<double>& metrics() const { return metrics_; }    // of each round
  int64_t best_round() const { return best_round_; }                 // the last one kept
  const BoosterOptions& options() const { return options_; }

 private:
  BoosterOptions options_;
  std::shared_ptr<Objective> objective_;
  c10::intrusive_ptr<TreeEnsemble> ensemble_;  // null before fit
  EnsembleArrays arrays_;
  at::Tensor bin_counts_;  // (F,): cuts of each feature
  std::vector<double> metrics_;
  int64_t best_round_ = -1;
};

}  // namespace tilewright::trees
