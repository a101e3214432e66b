// What a fit checks and measures, whatever its weak learners are.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tilewright/trees/booster.h"
#include "tilewright/trees/input_table.h"

namespace tilewright::trees {

// The objective that the options name.
std::shared_ptr<Objective> objective_of(const BoosterOptions& options);
// 0: none.
double max_delta_step_of(const BoosterOptions& options);
// n_estimators, learning_rate, reg_alpha and the like.
void check_rounds(const BoosterOptions& options);

// A checked Dataset.
struct Measured {
  InputTable table;
  Targets targets;
  at::Tensor scores;  // (K, N) float32
  // The same without the base score, as prediction adds leaves up: beside a great base score, sums
  // that held it would lose what later trees answer.
  at::Tensor sums;
  at::Tensor base;  // (K, 1) float32: the base score, on the table's device
};

// How many columns y has: 1 where it is (N,).
int64_t targets_of(const at::Tensor& y);
// `owner`: what names in errors begin with, such as "the evaluation set's ".
Measured checked(const std::string& owner, const Dataset& data, const Objective& objective);
// Also whether they go with the training set, and that it is large enough.
std::vector<Measured> checked_evaluation(const Measured& training, const std::vector<Dataset>& sets,
                                         const Objective& objective, int64_t early_stopping_rounds);
// Of the last set, undefined where there is none.
at::Tensor last_scores(const std::vector<Measured>& evaluation);

// The metrics of a fit, round by round, and when they say that it is enough.
class Metrics {
 public:
  // `objective` must outlive the object.
  Metrics(const FitOptions& how, const Objective& objective, size_t sets, int64_t patience);
  // After a round.
  void measure(const std::vector<Measured>& evaluation, const std::string& link);

  // The round that is best so far: the last one where nothing stops early.
  int64_t best_round() const { return best_round_; }
  // Whether the best was too many rounds ago.
  bool enough() const { return patience_ > 0 && round_ - best_round_ >= patience_; }
  const History& history() const { return history_; }
  std::vector<std::string> names() const;

 private:
  std::vector<Metric> metrics_;
  int64_t patience_, round_ = -1, best_round_ = -1;
  History history_;
};

}  // namespace tilewright::trees
