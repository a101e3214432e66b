// A round of AdaBoost: whether its tree is kept, and what it weighs.
#include "tilewright/trees/adaboost_rounds.h"

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/trees/adaboost_rows.h"
#include "tilewright/trees/names.h"

namespace tilewright::trees {

void vote(ForestTree& tree, int64_t num_class, double scale) {
  for (size_t n = 0; n < tree.feature.size(); ++n) {
    if (tree.feature[n] >= 0) continue;
    float* shares = tree.value.data() + int64_t(n) * num_class;
    const int64_t chosen = heaviest(shares, num_class);
    for (int64_t k = 0; k < num_class; ++k) shares[k] = k == chosen ? float(scale) : 0;
  }
}

std::unique_ptr<AdaBoostRounds> AdaBoostRounds::make(const ForestData& data,
                                                     const at::Tensor& values,
                                                     const AdaBoostOptions& options) {
  if (options.num_class == 0) return drawn_rows(data, values.const_data_ptr<double>(), options);
  if (options.resample) return drawn_rows(data, nullptr, options);
  return weighed_rows(data, options);
}

void AdaBoostRounds::keep(ForestTree&& tree, double weight, double error) {
  trees_.push_back(std::move(tree));
  estimator_weights_.push_back(weight);
  estimator_errors_.push_back(error);
}

bool AdaBoostRounds::next(int64_t round) {
  ForestTree tree = grow(round);
  const double error = error_of(tree);
  if (error <= 0) {
    keep(std::move(tree), 1, 0);
    ended_ = true;
    return true;
  }
  double weight = 0;
  if (options_.num_class > 0) {
    const auto k = double(options_.num_class);
    if (error >= 1 - 1 / k) {
      TILEWRIGHT_CHECK(kAdaBoost, !trees_.empty(),
                       "the first tree is worse than chance: its error is ", error, " of ",
                       options_.num_class, " classes");
      return false;
    }
    weight = options_.learning_rate * (std::log((1 - error) / error) + std::log(k - 1));
  } else {
    if (error >= 0.5) {
      // The only tree is kept all the same; it counts for nothing that could be weighed.
      if (trees_.empty()) keep(std::move(tree), 0, 1);
      return false;
    }
    weight = options_.learning_rate * std::log((1 - error) / error);
  }
  keep(std::move(tree), weight, error);
  if (round == options_.n_estimators - 1) return true;
  const double sum = reweigh(std::exp(weight), error);
  overflowed_ = !std::isfinite(sum);
  ended_ = overflowed_ || sum <= 0;
  return true;
}

}  // namespace tilewright::trees
