// Boosting of linear models, for C++ users: XGBoost's gblinear.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/trees/booster.h"

namespace tilewright::trees {

// Rounds of cyclic coordinate descent on the second-order approximation of the loss (Friedman,
// Hastie and Tibshirani 2010; XGBoost's coord_descent). Of a round's gradients g and hessians h,
// first the bias of an output steps by -rate sum(g) / sum(h), then each weight w of feature x, in
// order, by the learning rate to the v where
// sum(h x^2) / 2 (v - w)^2 + sum(g x) (v - w) + L2 / 2 v^2 + L1 |v| is least; gradients follow each
// step. L1 and L2 are reg_alpha and reg_lambda times the sum of the rows' weights. Missing values
// count 0.
//
// Of the options only objective, num_class, objective_param, ranking, n_estimators, learning_rate,
// early_stopping_rounds and tree.rules' alpha and lambda are read. A fit holds the table as float32
// columns, sparse ones too. The same bits for any number of threads.
class TILEWRIGHT_API LinearBooster {
 public:
  explicit LinearBooster(const BoosterOptions& options,
                         std::shared_ptr<Objective> objective = nullptr);

  // As Booster::fit; there is no model to go on from (FitOptions::start).
  void fit(const Dataset& data, const FitOptions& how = {});

  // x: (N, F) dense; (N, K) float32.
  at::Tensor scores(const at::Tensor& x) const;
  at::Tensor predict(const at::Tensor& x) const;

  // As Booster's.
  void save(const std::string& path) const;
  static LinearBooster load(const std::string& path,
                            std::shared_ptr<Objective> objective = nullptr);

  const at::Tensor& weight() const { return weight_; }          // (K, F) float32
  const at::Tensor& bias() const { return bias_; }              // (K,) float32
  const at::Tensor& base_score() const { return base_score_; }  // (K,), beside the bias
  const History& history() const { return history_; }
  const std::vector<std::string>& metric_names() const { return metric_names_; }
  int64_t best_round() const { return best_round_; }  // the last one kept
  const BoosterOptions& options() const { return options_; }

 private:
  BoosterOptions options_;
  std::shared_ptr<Objective> objective_;
  bool own_objective_;  // given by the caller
  at::Tensor weight_, bias_, base_score_;
  History history_;
  std::vector<std::string> metric_names_;
  int64_t best_round_ = -1;
};

}  // namespace tilewright::trees
