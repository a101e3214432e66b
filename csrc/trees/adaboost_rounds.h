// The rounds of AdaBoost on quantised features: a tree, its error, the rows' next weights.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "tilewright/trees/adaboost.h"
#include "tilewright/trees/forest_workspace.h"

namespace tilewright::trees {

class AdaBoostRounds {
 public:
  // values: (N, 1) float64, undefined of classes.
  static std::unique_ptr<AdaBoostRounds> make(const ForestData& data, const at::Tensor& values,
                                              const AdaBoostOptions& options);
  virtual ~AdaBoostRounds() = default;

  // Grows a tree and keeps it; false where it was dropped, which ends the rounds.
  bool next(int64_t round);
  // Nothing is left to be learnt, or weights became too large.
  bool ended() const { return ended_; }
  bool overflowed() const { return overflowed_; }

  std::vector<ForestTree>& trees() { return trees_; }
  const std::vector<double>& weights() const { return estimator_weights_; }
  const std::vector<double>& errors() const { return estimator_errors_; }

 protected:
  AdaBoostRounds(const ForestData& data, const AdaBoostOptions& options)
      : data_(data), options_(options) {}

  virtual ForestTree grow(int64_t round) = 0;
  // The last tree's error: a share of the weight.
  virtual double error_of(const ForestTree& tree) = 0;
  // Multiplies weights, of rows that the last tree got wrong by `factor`, or of values by
  // error / (1 - error) to the power of what their loss leaves; then makes 1 of their sum. Returns
  // the sum before that, and has done nothing of use where it is not finite or 0.
  virtual double reweigh(double factor, double error) = 0;

  const ForestData& data_;
  const AdaBoostOptions& options_;

 private:
  void keep(ForestTree&& tree, double weight, double error);

  std::vector<ForestTree> trees_;
  std::vector<double> estimator_weights_, estimator_errors_;
  bool ended_ = false, overflowed_ = false;
};

// Has each leaf answer with a one-hot vector of its heaviest class, times `scale`.
void vote(ForestTree& tree, int64_t num_class, double scale);

}  // namespace tilewright::trees
