#include "tilewright/trees/adaboost_rounds.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/forest_args.h"
#include "tilewright/trees/names.h"

namespace tilewright::trees {
namespace {

// Weights that have become too small to tell from 0 must not vanish.
constexpr double kLeastWeight = std::numeric_limits<double>::epsilon();
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

// xlogx: filled in where the rules need it.
ForestRules rules_for(const ForestData& data, const AdaBoostOptions& options, bool weighed,
                      std::vector<double>& xlogx) {
  ForestRules rules = rules_of(options.tree, data.table().features, options.seed);
  const bool small = !weighed && data.rows() < (int64_t(1) << kForestFieldBits);
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

// The class that each node of a tree answers with.
std::vector<int64_t> answers_of(const ForestTree& tree, int64_t num_class) {
  std::vector<int64_t> answers(tree.feature.size());
  for (size_t n = 0; n < answers.size(); ++n) {
    answers[n] = heaviest(tree.value.data() + int64_t(n) * num_class, num_class);
  }
  return answers;
}

ForestParallel parallel_of(int64_t threads) { return threads > 1 ? &forest_parallel : nullptr; }

// Classes whose rows weigh what they weigh. Weights are whole multiples of 2^-60, the form in which
// trees add them: sums have no order, and nothing is kept twice.
class WeighedRows : public AdaBoostRounds {
 public:
  WeighedRows(const ForestData& data, const AdaBoostOptions& options)
      : AdaBoostRounds(data, options), space_(data, rules_for(data, options, true, xlogx_), true) {
    const double* given =
        data.weights().defined() ? data.weights().const_data_ptr<double>() : nullptr;
    const auto weight = [given](int64_t row) { return given == nullptr ? 1.0 : given[row]; };
    const double scale = kOne / sum_of(data.rows(), weight);
    int64_t* const words = space_.words();
    for_rows(data.rows(), [&](int64_t row) {
      words[row] = weight(row) == 0 ? 0 : word_of(weight(row) * scale);
    });
  }

 private:
  static constexpr double kOne = 0x1p60;
  static int64_t word_of(double weight) {
    return std::max(int64_t(std::llrint(weight)), int64_t(kLeastWeight * kOne));
  }

  ForestTree grow(int64_t round) override {
    const int64_t threads = at::get_num_threads();
    return space_.grow_words(uint32_t(round), parallel_of(threads), threads);
  }
  double error_of(const ForestTree& tree) override {
    leaves_.clear();
    const std::vector<int64_t> answers = answers_of(tree, options_.num_class);
    for (size_t n = 0; n < answers.size(); ++n) {
      if (tree.feature[n] < 0) leaves_.push_back({tree.begin[n], tree.end[n], answers[n]});
    }
    std::atomic<int64_t> wrong{0}, all{0};
    for_leaf_rows([&](const int32_t* rows, int64_t count, int64_t answer) {
      int64_t missed = 0, total = 0;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t word = space_.words()[rows[i]];
        total += word;
        missed += data_.table().labels[rows[i]] != answer ? word : 0;
      }
      wrong += missed;
      all += total;
    });
    wrong_ = double(wrong.load()) / kOne;
    all_ = double(all.load()) / kOne;
    return wrong_ / all_;
  }
  double reweigh(double factor, double) override {
    const double sum = wrong_ * factor + (all_ - wrong_);
    if (!std::isfinite(sum)) return sum;
    const double right_by = 1 / sum, wrong_by = factor / sum;
    for_leaf_rows([&](const int32_t* rows, int64_t count, int64_t answer) {
      for (int64_t i = 0; i < count; ++i) {
        int64_t& word = space_.words()[rows[i]];
        const bool is_wrong = data_.table().labels[rows[i]] != answer;
        word = word_of(double(word) * (is_wrong ? wrong_by : right_by));
      }
    });
    return sum;
  }

  // body(rows, count, answer) for pieces of the leaves, in no order.
  template <class Body>
  void for_leaf_rows(const Body& body) {
    for (const Leaf& leaf : leaves_) {
      at::parallel_for(leaf.begin, leaf.end, 4 * kRowsOfLosses, [&](int64_t begin, int64_t end) {
        body(space_.rows() + begin, end - begin, leaf.answer);
      });
    }
  }

  struct Leaf {
    int64_t begin, end, answer;
  };
  std::vector<double> xlogx_;
  ForestWorkspace space_;
  std::vector<Leaf> leaves_;  // of the last tree
  double wrong_ = 0, all_ = 0;
};

// Trees see rows drawn in proportion to their weights; each row is then asked for its leaf.
class DrawnRows : public AdaBoostRounds {
 public:
  // values: (N,), or null of classes.
  DrawnRows(const ForestData& data, const double* values, const AdaBoostOptions& options)
      : AdaBoostRounds(data, options),
        space_(data, rules_for(data, options, false, xlogx_), false),
        values_(values),
        sample_weight_(size_t(data.rows()), 1.0),
        absent_(size_t(data.rows())),
        leaves_(size_t(data.rows()), 0) {
    if (data.weights().defined()) {
      const auto* given = data.weights().const_data_ptr<double>();
      sample_weight_.assign(given, given + data.rows());
    }
    for (size_t i = 0; i < absent_.size(); ++i) absent_[i] = sample_weight_[i] == 0;
    normalise();
    if (values != nullptr) losses_.assign(size_t(data.rows()), 0.0);
  }

 private:
  ForestTree grow(int64_t round) override {
    for_rows(data_.rows(), [&](int64_t i) {
      double& w = sample_weight_[size_t(i)];
      w = absent_[size_t(i)] != 0 ? 0 : std::max(w, kLeastWeight);
    });
    space_.counts.assign(sample_weight_.size(), 0);
    const RowSampler sampler(sample_weight_.data(), data_.rows());
    sampler.draw(data_.rows(), uint32_t(round), uint64_t(options_.seed), space_.counts.data());
    const int64_t threads = at::get_num_threads();
    ForestTree tree = space_.grow_counts(uint32_t(round), parallel_of(threads), threads);
    at::parallel_for(0, data_.rows(), kRowsOfLosses, [&](int64_t begin, int64_t end) {
      walk_forest_tree(data_.table(), space_.nodes(), nullptr, begin, end, leaves_.data());
    });
    return tree;
  }

  bool is_wrong(int64_t row) const {
    return answers_[size_t(leaves_[size_t(row)])] != data_.table().labels[row];
  }
  // The weight of the rows that the tree gets wrong; of values, the weighted mean of the losses,
  // each a share of the greatest one.
  double error_of(const ForestTree& tree) override {
    const auto weight = [&](int64_t i) { return sample_weight_[size_t(i)]; };
    if (values_ == nullptr) {
      answers_ = answers_of(tree, options_.num_class);
      const double wrong =
          sum_of(data_.rows(), [&](int64_t i) { return is_wrong(i) ? weight(i) : 0; });
      return wrong / sum_of(data_.rows(), weight);
    }
    double greatest = 0;
    for (int64_t i = 0; i < data_.rows(); ++i) {
      // Answers are float32: a perfect one is seen as such.
      const double answer = tree.value[size_t(leaves_[size_t(i)])];
      losses_[size_t(i)] = std::fabs(answer - double(float(values_[i])));
      if (weight(i) > 0) greatest = std::max(greatest, losses_[size_t(i)]);
    }
    const bool square = options_.loss == "square", exponential = options_.loss == "exponential";
    for_rows(data_.rows(), [&](int64_t i) {
      double& loss = losses_[size_t(i)];
      if (greatest != 0) loss /= greatest;
      loss = square ? loss * loss : exponential ? 1 - std::exp(-loss) : loss;
    });
    return sum_of(data_.rows(),
                  [&](int64_t i) { return weight(i) > 0 ? weight(i) * losses_[size_t(i)] : 0; });
  }

  double reweigh(double factor, double error) override {
    const double log_beta = std::log(error / (1 - error)), rate = options_.learning_rate;
    for_rows(data_.rows(), [&](int64_t i) {
      double& w = sample_weight_[size_t(i)];
      if (values_ != nullptr) {
        w *= std::exp(log_beta * ((1 - losses_[size_t(i)]) * rate));
      } else if (is_wrong(i)) {
        w *= factor;
      }
    });
    return normalise();
  }
  double normalise() {
    const double sum = sum_of(data_.rows(), [&](int64_t i) { return sample_weight_[size_t(i)]; });
    if (!std::isfinite(sum) || sum <= 0) return sum;
    for_rows(data_.rows(), [&](int64_t i) { sample_weight_[size_t(i)] /= sum; });
    return sum;
  }

  std::vector<double> xlogx_;
  ForestWorkspace space_;
  const double* values_;
  std::vector<double> sample_weight_;
  std::vector<uint8_t> absent_;  // rows of no weight
  std::vector<int32_t> leaves_;
  std::vector<int64_t> answers_;  // of the last tree's nodes: their classes
  std::vector<double> losses_;    // of rows, in [0, 1]: of values alone
};

}  // namespace

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
  if (options.num_class == 0) {
    return std::make_unique<DrawnRows>(data, values.const_data_ptr<double>(), options);
  }
  if (options.resample) return std::make_unique<DrawnRows>(data, nullptr, options);
  return std::make_unique<WeighedRows>(data, options);
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
