// AdaBoost of values, and of classes by resampling.
#include <cmath>

#include "tilewright/trees/adaboost_rows.h"
#include "tilewright/trees/forest_args.h"

namespace tilewright::trees {
namespace {

// xlogx: filled in where the rules need it.
ForestRules drawn_rules(const ForestData& data, const AdaBoostOptions& options,
                        std::vector<double>& xlogx) {
  ForestRules rules = rules_of(options.tree, data.table().features, options.seed);
  const bool small = data.rows() < (int64_t(1) << kForestFieldBits);
  rules.stats = options.num_class == 0            ? ForestStats::kValues
                : small && options.num_class == 2 ? ForestStats::kPacked
                                                  : ForestStats::kClasses;
  if (rules.stats == ForestStats::kPacked && rules.criterion == ForestCriterion::kEntropy) {
    xlogx = x_log_x_table(data.rows());
    rules.xlogx = xlogx.data();
  }
  return rules;
}

// Trees see rows drawn in proportion to their weights; each row is then asked for its leaf.
class DrawnRows : public AdaBoostRounds {
 public:
  // values: (N,), or null of classes.
  DrawnRows(const ForestData& data, const double* values, const AdaBoostOptions& options)
      : AdaBoostRounds(data, options),
        space_(data, drawn_rules(data, options, xlogx_), false),
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

std::unique_ptr<AdaBoostRounds> drawn_rows(const ForestData& data, const double* values,
                                           const AdaBoostOptions& options) {
  return std::make_unique<DrawnRows>(data, values, options);
}

}  // namespace tilewright::trees
