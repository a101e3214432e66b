// AdaBoost of classes by weights.
#include <atomic>
#include <cmath>

#include "tilewright/trees/adaboost_rows.h"
#include "tilewright/trees/forest_args.h"

namespace tilewright::trees {
namespace {

ForestRules weighed_rules(const ForestData& data, const AdaBoostOptions& options) {
  ForestRules rules = rules_of(options.tree, data.table().features, options.seed);
  rules.stats = ForestStats::kClasses;
  return rules;
}

// Classes whose rows weigh what they weigh. Weights are whole multiples of 2^-60, the form in which
// trees add them: sums have no order, and nothing is kept twice.
class WeighedRows : public AdaBoostRounds {
 public:
  WeighedRows(const ForestData& data, const AdaBoostOptions& options)
      : AdaBoostRounds(data, options), space_(data, weighed_rules(data, options), true) {
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
  ForestWorkspace space_;
  std::vector<Leaf> leaves_;  // of the last tree
  double wrong_ = 0, all_ = 0;
};

}  // namespace

std::unique_ptr<AdaBoostRounds> weighed_rows(const ForestData& data,
                                             const AdaBoostOptions& options) {
  return std::make_unique<WeighedRows>(data, options);
}

}  // namespace tilewright::trees
