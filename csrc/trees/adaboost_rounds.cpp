#include "tilewright/trees/adaboost_rounds.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/forest_args.h"
#include "tilewright/trees/names.h"

namespace tilewright::trees {
namespace {

constexpr int64_t kRowsOfLosses = 4096;  // rows whose sums are added up on their own

// The sum of term(row), by chunks in their order: the same for any number of threads.
template <class Term>
double sum_of(int64_t rows, const Term& term) {
  std::vector<double> parts(size_t(ceil_div(rows, kRowsOfLosses)));
  at::parallel_for(0, int64_t(parts.size()), 4, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      double sum = 0;
      for (int64_t row = c * kRowsOfLosses; row < std::min((c + 1) * kRowsOfLosses, rows); ++row) {
        sum += term(row);
      }
      parts[size_t(c)] = sum;
    }
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

template <class Body>
void for_rows(int64_t rows, const Body& body) {
  at::parallel_for(0, rows, 4 * kRowsOfLosses, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

bool by_weight(const AdaBoostOptions& options) {
  return options.num_class > 0 && !options.resample;
}

// xlogx: filled in where the rules need it.
ForestRules rules_for(const ForestData& data, const AdaBoostOptions& options,
                      std::vector<double>& xlogx) {
  ForestRules rules = rules_of(options.tree, data.table().features, options.seed);
  const bool small = !by_weight(options) && data.rows() < (int64_t(1) << kForestFieldBits);
  rules.stats = options.num_class == 0            ? ForestStats::kValues
                : small && options.num_class == 2 ? ForestStats::kPacked
                                                  : ForestStats::kClasses;
  if (rules.stats == ForestStats::kPacked && rules.criterion == ForestCriterion::kEntropy) {
    xlogx = x_log_x_table(data.rows());
    rules.xlogx = xlogx.data();
  }
  return rules;
}

int64_t heaviest(const float* shares, int64_t num_class) {
  return std::max_element(shares, shares + num_class) - shares;
}

}  // namespace

void vote(ForestTree& tree, int64_t num_class, double scale) {
  for (size_t n = 0; n < tree.feature.size(); ++n) {
    if (tree.feature[n] >= 0) continue;
    float* shares = tree.value.data() + int64_t(n) * num_class;
    const int64_t chosen = heaviest(shares, num_class);
    for (int64_t k = 0; k < num_class; ++k) shares[k] = k == chosen ? float(scale) : 0;
  }
}

AdaBoostRounds::AdaBoostRounds(const ForestData& data, const at::Tensor& values,
                               const AdaBoostOptions& options)
    : data_(data),
      options_(options),
      rules_(rules_for(data, options, xlogx_)),
      space_(data, rules_, by_weight(options)),
      by_weight_(by_weight(options)) {
  const auto rows = size_t(data.rows());
  if (options.num_class == 0) values_ = values.const_data_ptr<double>();
  sample_weight_.assign(rows, 1.0);
  if (data.weights().defined()) {
    const auto* given = data.weights().const_data_ptr<double>();
    sample_weight_.assign(given, given + rows);
  }
  absent_.resize(rows);
  for (size_t i = 0; i < rows; ++i) absent_[i] = sample_weight_[i] == 0;
  const double sum = sum_of(data.rows(), [&](int64_t i) { return sample_weight_[size_t(i)]; });
  for (double& w : sample_weight_) w /= sum;
  leaves_.assign(rows, 0);
  if (options.num_class == 0) losses_.assign(rows, 0.0);
}

// Weights that have become too small to tell from 0 must not vanish.
void AdaBoostRounds::limit_weights() {
  constexpr double kLeast = std::numeric_limits<double>::epsilon();
  for_rows(data_.rows(), [&](int64_t i) {
    double& w = sample_weight_[size_t(i)];
    w = absent_[size_t(i)] != 0 ? 0 : std::max(w, kLeast);
  });
}

ForestTree AdaBoostRounds::grow(int64_t round) {
  const int64_t tasks = at::get_num_threads();
  const ForestParallel parallel = tasks > 1 ? &forest_parallel : nullptr;
  if (by_weight_) {
    const double sum = sum_of(data_.rows(), [&](int64_t i) { return sample_weight_[size_t(i)]; });
    ForestTree tree =
        space_.grow_weights(uint32_t(round), sample_weight_.data(), sum, parallel, tasks);
    // Rows stand by their leaf; those of no weight are asked for nothing.
    for (size_t n = 0; n < tree.feature.size(); ++n) {
      if (tree.feature[n] >= 0) continue;
      for (int64_t i = tree.begin[n]; i < tree.end[n]; ++i) {
        leaves_[size_t(space_.rows()[i])] = int32_t(n);
      }
    }
    return tree;
  }
  space_.counts.assign(sample_weight_.size(), 0);
  const RowSampler sampler(sample_weight_.data(), data_.rows());
  sampler.draw(data_.rows(), uint32_t(round), uint64_t(options_.seed), space_.counts.data());
  ForestTree tree = space_.grow_counts(uint32_t(round), parallel, tasks);
  at::parallel_for(0, data_.rows(), kRowsOfLosses, [&](int64_t begin, int64_t end) {
    walk_forest_tree(data_.table(), space_.nodes(), nullptr, begin, end, leaves_.data());
  });
  return tree;
}

// The weight of the rows that the tree gets wrong, as a share.
double AdaBoostRounds::class_errors(const ForestTree& tree) {
  const int64_t num_class = options_.num_class;
  answers_.resize(tree.feature.size());
  for (size_t n = 0; n < answers_.size(); ++n) {
    answers_[n] = heaviest(tree.value.data() + int64_t(n) * num_class, num_class);
  }
  const auto rows = data_.rows();
  const double wrong =
      sum_of(rows, [&](int64_t i) { return is_wrong(i) ? sample_weight_[size_t(i)] : 0; });
  return wrong / sum_of(rows, [&](int64_t i) { return sample_weight_[size_t(i)]; });
}

// The weighted mean of the losses, each a share of the greatest one.
double AdaBoostRounds::value_errors(const ForestTree& tree) {
  double greatest = 0;
  for (int64_t i = 0; i < data_.rows(); ++i) {
    // Answers are float32: a perfect one is seen as such.
    const double answer = tree.value[size_t(leaves_[size_t(i)])];
    losses_[size_t(i)] = std::fabs(answer - double(float(values_[i])));
    if (sample_weight_[size_t(i)] > 0) greatest = std::max(greatest, losses_[size_t(i)]);
  }
  const bool square = options_.loss == "square", exponential = options_.loss == "exponential";
  for_rows(data_.rows(), [&](int64_t i) {
    double& loss = losses_[size_t(i)];
    if (greatest != 0) loss /= greatest;
    loss = square ? loss * loss : exponential ? 1 - std::exp(-loss) : loss;
  });
  return sum_of(data_.rows(), [&](int64_t i) {
    return sample_weight_[size_t(i)] > 0 ? sample_weight_[size_t(i)] * losses_[size_t(i)] : 0;
  });
}

void AdaBoostRounds::keep(ForestTree&& tree, double weight, double error) {
  trees_.push_back(std::move(tree));
  estimator_weights_.push_back(weight);
  estimator_errors_.push_back(error);
}

bool AdaBoostRounds::next(int64_t round) {
  limit_weights();
  ForestTree tree = grow(round);
  const bool classes = options_.num_class > 0;
  const double error = classes ? class_errors(tree) : value_errors(tree);
  const bool last = round == options_.n_estimators - 1;
  if (error <= 0) {
    keep(std::move(tree), 1, 0);
    ended_ = true;
    return true;
  }
  if (classes) {
    const auto k = double(options_.num_class);
    if (error >= 1 - 1 / k) {
      TILEWRIGHT_CHECK(kAdaBoost, !trees_.empty(),
                       "the first tree is worse than chance: its error is ", error, " of ",
                       options_.num_class, " classes");
      return false;
    }
    const double weight =
        options_.learning_rate * (std::log((1 - error) / error) + std::log(k - 1));
    keep(std::move(tree), weight, error);
    const double factor = std::exp(weight);
    for_rows(last ? 0 : data_.rows(), [&](int64_t i) {
      if (is_wrong(i)) sample_weight_[size_t(i)] *= factor;
    });
  } else {
    if (error >= 0.5) {
      // The only tree is kept all the same; it counts for nothing that could be weighed.
      if (trees_.empty()) keep(std::move(tree), 0, 1);
      return false;
    }
    const double beta = error / (1 - error), rate = options_.learning_rate;
    keep(std::move(tree), rate * std::log(1 / beta), error);
    const double log_beta = std::log(beta);
    for_rows(last ? 0 : data_.rows(), [&](int64_t i) {
      sample_weight_[size_t(i)] *= std::exp(log_beta * ((1 - losses_[size_t(i)]) * rate));
    });
  }
  normalise(round);
  return true;
}

void AdaBoostRounds::normalise(int64_t round) {
  const double sum = sum_of(data_.rows(), [&](int64_t i) { return sample_weight_[size_t(i)]; });
  overflowed_ = !std::isfinite(sum);
  ended_ = overflowed_ || sum <= 0;
  if (ended_ || round == options_.n_estimators - 1) return;
  for_rows(data_.rows(), [&](int64_t i) { sample_weight_[size_t(i)] /= sum; });
}

}  // namespace tilewright::trees
