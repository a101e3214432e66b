#include "tilewright/trees/adaboost.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/trees/adaboost_rounds.h"
#include "tilewright/trees/ensemble_of.h"
#include "tilewright/trees/forest_args.h"
#include "tilewright/trees/names.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

}  // namespace

AdaBoost::AdaBoost(const AdaBoostOptions& options) : options_(options) {
  if (options_.num_class == 0 && options_.tree.criterion == "gini") {
    options_.tree.criterion = "squared_error";
  }
  check_tree_options(kAdaBoost, options_.tree, options.num_class);
  TILEWRIGHT_CHECK(kAdaBoost, options.n_estimators >= 1, "n_estimators must be positive, got ",
                   options.n_estimators);
  TILEWRIGHT_CHECK(kAdaBoost, options.learning_rate > 0 && options.learning_rate < HUGE_VAL,
                   "learning_rate must be positive, got ", options.learning_rate);
  TILEWRIGHT_CHECK(
      kAdaBoost,
      options.loss == "linear" || options.loss == "square" || options.loss == "exponential",
      "loss must be linear, square or exponential, got ", options.loss);
}

void AdaBoost::fit(const Tensor& x, const Tensor& y, const Tensor& weight,
                   const TreeCallback& after_tree) {
  const InputTable features("x", x);
  check_training_set(kAdaBoost, features, y, options_.num_class);
  TILEWRIGHT_CHECK(kAdaBoost, y.dim() == 1, "y must have shape (N,), got ", shape_of(y));
  const bool classes = options_.num_class > 0;
  const Tensor weights = weights_of(kAdaBoost, weight, features.rows());
  const Tensor labels = classes ? labels_of(kAdaBoost, y, options_.num_class) : Tensor();
  const Tensor values = classes ? Tensor() : values_of(kAdaBoost, y);
  // Each tree reads all rows in turn: those of its root, and stumps have no more.
  ForestData data(features, weights, options_.tree.max_bin, ForestData::Rows::kDense);
  classes ? data.set_labels(labels, options_.num_class) : data.set_values(values);

  const std::unique_ptr<AdaBoostRounds> rounds = AdaBoostRounds::make(data, values, options_);
  for (int64_t round = 0; round < options_.n_estimators; ++round) {
    if (!rounds->next(round)) break;
    if (after_tree) after_tree(round + 1);
    if (rounds->ended()) break;
  }
  // Nothing of an earlier fit is touched before all has gone well.
  std::vector<ForestTree>& trees = rounds->trees();
  const auto count = int64_t(trees.size());
  double sum = 0;
  for (const double w : rounds->weights()) sum += w;
  if (classes) {
    const auto k = double(options_.num_class);
    const double others = -1 / ((k - 1) * (k - 1));
    for (size_t t = 0; t < trees.size(); ++t) {
      vote(trees[t], options_.num_class, rounds->weights()[t] / sum * (1 / (k - 1) - others));
    }
    arrays_ = forest_arrays(trees, data.cuts(), options_.num_class, 1);
    base_score_ = at::full({options_.num_class}, others, at::kFloat);
  } else {
    arrays_ = forest_arrays(trees, data.cuts(), 1, 1);
    arrays_.tree_output = at::arange(count, at::kInt);
    arrays_.num_outputs = count;
    base_score_ = at::zeros({count}, at::kFloat);
  }
  weights_ = rounds->weights();
  errors_ = rounds->errors();
  overflowed_ = rounds->overflowed();
  num_features_ = features.features();
}

c10::intrusive_ptr<TreeEnsemble> AdaBoost::ensemble() const {
  TILEWRIGHT_CHECK(kAdaBoost, arrays_.feature.defined(), "the model has not been fitted");
  return ensemble_of(arrays_, base_score_, options_.num_class > 0 ? "softmax" : "identity",
                     num_features_);
}

Tensor AdaBoost::predict(const Tensor& x) const {
  const Tensor found = ensemble()->predict(x);
  if (options_.num_class > 0) return found;
  return weighted_median(found, at::tensor(weights_, at::kDouble)).unsqueeze(1);
}

Tensor weighted_median(const Tensor& answers, const Tensor& weights) {
  TILEWRIGHT_CHECK("weighted_median",
                   answers.dim() == 2 && weights.dim() == 1 && answers.size(1) == weights.size(0),
                   "takes answers (N, T) and weights (T,), got ", shape_of(answers), " and ",
                   shape_of(weights));
  const auto [sorted, order] = answers.sort(/*stable=*/std::optional<bool>(true), 1);
  const Tensor below = weights.to(answers.device()).index({order}).cumsum(1);
  const Tensor enough = below.ge(0.5 * below.slice(1, -1));
  return sorted.gather(1, enough.to(at::kByte).argmax(1, true)).squeeze(1);
}

}  // namespace tilewright::trees
