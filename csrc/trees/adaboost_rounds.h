// The rounds of AdaBoost on quantised features: a tree, its error, the rows' next weights.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "tilewright/trees/adaboost.h"
#include "tilewright/trees/forest_workspace.h"

namespace tilewright::trees {

class AdaBoostRounds {
 public:
  // values: (N, 1) float64, undefined of classes.
  AdaBoostRounds(const ForestData& data, const at::Tensor& values, const AdaBoostOptions& options);

  // Grows a tree and keeps it; false where it was dropped, which ends the rounds.
  bool next(int64_t round);
  // Nothing is left to be learnt, or weights became too large.
  bool ended() const { return ended_; }
  bool overflowed() const { return overflowed_; }

  std::vector<ForestTree>& trees() { return trees_; }
  const std::vector<double>& weights() const { return estimator_weights_; }
  const std::vector<double>& errors() const { return estimator_errors_; }

 private:
  void limit_weights();
  ForestTree grow(int64_t round);
  double class_errors(const ForestTree& tree);
  double value_errors(const ForestTree& tree);
  void keep(ForestTree&& tree, double weight, double error);
  void normalise(int64_t round);

  const ForestData& data_;
  const AdaBoostOptions& options_;
  std::vector<double> xlogx_;
  ForestRules rules_;
  ForestWorkspace space_;
  bool by_weight_;
  bool is_wrong(int64_t row) const {
    return answers_[size_t(leaves_[size_t(row)])] != data_.table().labels[row];
  }
  const double* values_ = nullptr;
  std::vector<double> sample_weight_;
  std::vector<uint8_t> absent_;  // rows of no weight
  std::vector<int32_t> leaves_;
  std::vector<int64_t> answers_;  // of the last tree's nodes: their classes
  std::vector<double> losses_;    // of rows, in [0, 1]: of values alone
  std::vector<ForestTree> trees_;
  std::vector<double> estimator_weights_, estimator_errors_;
  bool ended_ = false, overflowed_ = false;
};

// Has each leaf answer with a one-hot vector of its heaviest class, times `scale`.
void vote(ForestTree& tree, int64_t num_class, double scale);

}  // namespace tilewright::trees
