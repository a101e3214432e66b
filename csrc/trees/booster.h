// Gradient boosting for C++ users: fit, measure, go on, predict.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/trees/dart.h"
#include "tilewright/trees/metrics.h"
#include "tilewright/trees/objectives.h"
#include "tilewright/trees/ranking.h"
#include "tilewright/trees/row_sampling.h"
#include "tilewright/trees/tree_arrays.h"
#include "tilewright/trees/tree_ensemble.h"

namespace tilewright::trees {

struct BoosterOptions {
  std::string objective = "squared_error";  // Objective::make
  int64_t num_class = 0;                    // of softmax
  double objective_param = 0;               // of quantile, huber and tweedie
  RankingOptions ranking;                   // of lambdarank
  int64_t n_estimators = 100;               // rounds
  double learning_rate = 0.1;
  // "hist": splits lie between bins of each feature; "exact": between any two values.
  std::string tree_method = "hist";
  int64_t max_bin = 255;  // of "hist"
  // Of several outputs: "one_output_per_tree", a tree for each in a round, or "multi_output_tree",
  // one tree whose leaves are vectors (no categories, no monotone constraints, no "exact").
  std::string multi_strategy = "one_output_per_tree";
  TreeOptions tree;
  RowSampling sampling;
  DartOptions dart;
  // Rounds without a better metric on the last evaluation set after which fitting stops; 0: never.
  // The rounds up to the best are kept.
  int64_t early_stopping_rounds = 0;
  int64_t seed = 0;
};

// A table to fit on, or to measure on, on the device of x; y and weight are copied there.
struct Dataset {
  at::Tensor x;  // (N, F) floating, NaN missing; or torch's sparse CSR, whose absent entries are 0
  at::Tensor y;  // (N,), or (N, K) of losses that take several columns: then there are K outputs
  at::Tensor weight;  // (N,), or undefined
  // (Q,) integers: how many rows each query has, which stand together; undefined: all are one
  // query. Ranking only.
  at::Tensor group;
};

// Trees that a fit goes on from: of Booster::model(), of a file.
struct StartingModel {
  EnsembleArrays arrays;
  at::Tensor base_score;  // (K,) float32
};
TILEWRIGHT_API StartingModel start_from(const TreeEnsemble& ensemble);

// After each round: which of this fit's it was, and the scores (K, N) of the last evaluation set
// where there is one; true stops.
using RoundCallback = std::function<bool(int64_t round, const at::Tensor& evaluation_scores)>;

struct FitOptions {
  std::vector<Dataset> evaluation;
  // None: the objective's own. The last one, on the last set, says when to stop early.
  std::vector<Metric> metrics;
  // n_estimators rounds are added to those of this model, which stay. On the same data with the
  // same options the trees are bitwise those of one fit of all rounds (DART: to the rounding of
  // scores).
  std::optional<StartingModel> start;
  RoundCallback after_round;
};

// The value of each metric on each evaluation set after each round: [set][metric][round].
using History = std::vector<std::vector<std::vector<double>>>;

// Chen and Guestrin's second-order boosting (arXiv:1603.02754) on histograms or on sorted values,
// with gradients in fixed point: the same model whatever the number of threads.
class TILEWRIGHT_API Booster {
 public:
  // `objective`: in place of the one that the options name, such as a CustomObjective.
  explicit Booster(const BoosterOptions& options, std::shared_ptr<Objective> objective = nullptr);

  // Labels that are not finite or that the objective does not take are an error that names the row.
  //
  // Where x is on CUDA the fit is there: trees by grow_tree, gradients by ATen. The host asks the
  // device for something only where there is an evaluation set or DART, every 2^22 places of trees,
  // and at the end. The model is that of a fit on the CPU, bit for bit with squared errors (other
  // losses: as far as ATen's functions round alike on both). An error names what it does not take:
  // sparse tables, lossguide, max_leaves, a max_depth outside [1, 16], colsample_bylevel and
  // _bynode, categories, quantiles as leaves, ranking. Gradients that are not finite count as 0.
  void fit(const Dataset& data, const FitOptions& how);
  // The same with at most one evaluation set.
  void fit(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight = {},
           const at::Tensor& eval_x = {}, const at::Tensor& eval_y = {},
           const RoundCallback& after_round = nullptr);

  // (N, K) float32: raw scores, or predictions of the objective's scale: means, probabilities. A
  // category that was not there in training is an error.
  at::Tensor scores(const at::Tensor& x) const;
  at::Tensor predict(const at::Tensor& x) const;

  // The fitted model in a file: it predicts the same bits, and fits go on from it as from this one;
  // of the last fit's metrics nothing is kept. What is no such file is an error that names the
  // field. `objective`: of a booster that was given its own.
  void save(const std::string& path) const;
  static Booster load(const std::string& path, std::shared_ptr<Objective> objective = nullptr);

  // The fitted model by itself, to save, script or serve; to go on from.
  c10::intrusive_ptr<TreeEnsemble> ensemble() const;
  StartingModel model() const { return {arrays_, base_score()}; }

  const EnsembleArrays& arrays() const { return arrays_; }
  at::Tensor bin_counts() const { return bin_counts_; }  // (F,) int32; categories are one more
  at::Tensor base_score() const { return ensemble()->arrays()[8]; }  // (K,)
  const History& history() const { return history_; }                // of the last fit's rounds
  const std::vector<std::string>& metric_names() const { return metric_names_; }
  // What early stopping looks at; empty without an evaluation set.
  std::vector<double> metrics() const {
    return history_.empty() ? std::vector<double>() : history_.back().back();
  }
  int64_t best_round() const { return best_round_; }  // the last one kept, of all there are
  const BoosterOptions& options() const { return options_; }

 private:
  BoosterOptions options_;
  std::shared_ptr<Objective> objective_;
  bool own_objective_;                         // given by the caller
  c10::intrusive_ptr<TreeEnsemble> ensemble_;  // null before fit
  EnsembleArrays arrays_;
  at::Tensor bin_counts_;  // (F,): cuts of each feature
  History history_;
  std::vector<std::string> metric_names_;
  int64_t best_round_ = -1;
};

}  // namespace tilewright::trees
