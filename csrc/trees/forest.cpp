#include "tilewright/trees/forest.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>

#include "tilewright/core/check.h"
#include "tilewright/trees/ensemble_of.h"
#include "tilewright/trees/forest_args.h"
#include "tilewright/trees/forest_workspace.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/tree_workspace.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

bool whole(const Tensor& weights) { return at::equal(weights, weights.round()); }

// Labels of classes weigh so that each class of the bag weighs the same.
void balance(const ForestLabel* labels, int64_t num_class, const std::vector<int32_t>& counts,
             std::vector<double>& weights) {
  std::vector<double> of_class(size_t(num_class), 0.0);
  double all = 0, present = 0;
  for (size_t row = 0; row < counts.size(); ++row) of_class[size_t(labels[row])] += counts[row];
  for (const double sum : of_class) all += sum, present += sum > 0;
  for (size_t row = 0; row < counts.size(); ++row) {
    const double of = of_class[size_t(labels[row])];
    weights[row] = of > 0 ? counts[row] * (all / (present * of)) : 0;
  }
}

// Earlier trees before later ones; the earlier's values are of means over fewer trees.
EnsembleArrays joined(const EnsembleArrays& a, const EnsembleArrays& b) {
  const int64_t nodes = a.feature.size(0), trees = a.tree_output.size(0);
  const double share = double(trees) / double(trees + b.tree_output.size(0));
  EnsembleArrays out;
  out.feature = at::cat({a.feature, b.feature});
  out.threshold = at::cat({a.threshold, b.threshold});
  out.left = at::cat({a.left, b.left});
  out.right = at::cat({a.right, b.right});
  out.default_left = at::cat({a.default_left, b.default_left});
  out.value = at::cat({(a.value.to(at::kDouble) * share).to(at::kFloat), b.value});
  out.gain = at::cat({a.gain, b.gain});
  out.cover = at::cat({a.cover, b.cover});
  out.tree_ptr = at::cat({a.tree_ptr, b.tree_ptr.slice(0, 1) + nodes});
  out.tree_output = at::cat({a.tree_output, b.tree_output});
  out.num_outputs = b.num_outputs;
  return out;
}

}  // namespace

Forest::Forest(const ForestOptions& options) : options_(options) {
  check_tree_options(kForest, options.tree, options.num_class);
  TILEWRIGHT_CHECK(kForest, options.n_estimators >= 1, "n_estimators must be positive, got ",
                   options.n_estimators);
  TILEWRIGHT_CHECK(kForest, options.max_samples >= 0, "max_samples must not be negative, got ",
                   options.max_samples);
  TILEWRIGHT_CHECK(kForest, options.bootstrap || options.max_samples == 0,
                   "max_samples needs bootstrap");
  TILEWRIGHT_CHECK(kForest,
                   !options.balanced_subsample || (options.bootstrap && options.num_class > 0),
                   "balanced_subsample needs bootstrap and classes");
}

void Forest::fit(const Tensor& x, const Tensor& y, const Tensor& weight,
                 const TreeCallback& after_tree, const EnsembleArrays* earlier) {
  const InputTable features("x", x);
  check_training_set(kForest, features, y, options_.num_class);
  const bool classes = options_.num_class > 0;
  const Tensor weights = weights_of(kForest, weight, features.rows());
  const Tensor target = classes ? labels_of(kForest, y, options_.num_class) : values_of(kForest, y);
  const int64_t first = earlier == nullptr ? 0 : earlier->tree_output.size(0);
  TILEWRIGHT_CHECK(kForest, first < options_.n_estimators,
                   "n_estimators must be more than the earlier ", first, " trees, got ",
                   options_.n_estimators);
  ForestData data(features, weights, options_.tree.max_bin);
  classes ? data.set_labels(target, options_.num_class) : data.set_values(target);

  // What rows count in each tree: how often they are drawn, or their weight.
  const int64_t rows = features.rows();
  const int64_t draws = options_.max_samples > 0 ? options_.max_samples : rows;
  const bool counted =
      options_.bootstrap ? !options_.balanced_subsample : !weights.defined() || whole(weights);
  const double most = options_.bootstrap  ? double(draws)
                      : weights.defined() ? weights.sum().item<double>()
                                          : double(rows);
  ForestRules rules = rules_of(options_.tree, features.features(), options_.seed);
  const bool small = counted && most < double(int64_t(1) << kForestFieldBits);
  rules.stats = !classes                           ? ForestStats::kValues
                : small && options_.num_class == 2 ? ForestStats::kPacked
                                                   : ForestStats::kClasses;
  std::vector<double> table;
  if (rules.stats == ForestStats::kPacked && rules.criterion == ForestCriterion::kEntropy) {
    table = x_log_x_table(int64_t(most));
    rules.xlogx = table.data();
  }
  const double* weighed = weights.defined() ? weights.const_data_ptr<double>() : nullptr;
  const RowSampler sampler(options_.bootstrap ? weighed : nullptr, rows);
  const bool by_counts = counted && most < double(std::numeric_limits<int32_t>::max());

  const int64_t count = options_.n_estimators - first;
  std::vector<ForestTree> trees((size_t(count)));
  std::vector<std::unique_ptr<ForestWorkspace>> spaces(size_t(at::get_num_threads()));
  std::vector<std::vector<double>> balanced(spaces.size());
  std::mutex one_at_a_time;
  int64_t done = first;
  run_tree_tasks(count, [&](int64_t task, int64_t thread) {
    auto& space = spaces[size_t(thread)];
    if (space == nullptr) space = std::make_unique<ForestWorkspace>(data, rules, false);
    const auto tree = uint32_t(first + task);
    ForestTree& out = trees[size_t(task)];
    std::vector<int32_t>& counts = space->counts;
    if (options_.bootstrap) {
      counts.assign(size_t(rows), 0);
      sampler.draw(draws, tree, uint64_t(options_.seed), counts.data());
    } else if (by_counts) {
      counts.resize(size_t(rows));
      for (int64_t i = 0; i < rows; ++i) {
        counts[size_t(i)] = weighed == nullptr ? 1 : int32_t(weighed[i]);
      }
    }
    if (options_.balanced_subsample) {
      std::vector<double>& own = balanced[size_t(thread)];
      own.resize(size_t(rows));
      balance(data.table().labels, options_.num_class, counts, own);
      out = space->grow_weights(tree, own.data(), most);
    } else {
      out = options_.bootstrap || by_counts ? space->grow_counts(tree)
                                            : space->grow_weights(tree, weighed, most);
    }
    if (!after_tree) return;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    after_tree(++done);
  });
  const EnsembleArrays grown =
      forest_arrays(trees, data.cuts(), data.table().outputs, 1.0 / double(options_.n_estimators));
  // Nothing of an earlier fit is touched before all has gone well.
  arrays_ = first == 0 ? grown : joined(*earlier, grown);
  num_features_ = features.features();
}

c10::intrusive_ptr<TreeEnsemble> Forest::ensemble() const {
  TILEWRIGHT_CHECK(kForest, arrays_.feature.defined(), "the model has not been fitted");
  return ensemble_of(arrays_, at::zeros({arrays_.num_outputs}, at::kFloat), "identity",
                     num_features_);
}

Tensor Forest::predict(const Tensor& x) const { return ensemble()->predict(x); }

Tensor Forest::out_of_bag(const Tensor& x, const Tensor& weight) const {
  TILEWRIGHT_CHECK(kForest, arrays_.feature.defined(), "the model has not been fitted");
  TILEWRIGHT_CHECK(kForest, options_.bootstrap, "rows are out of a bag only with bootstrap");
  const InputTable features("x", x);
  check_on_cpu(kForest, features);
  TILEWRIGHT_CHECK(kForest, features.features() == num_features_, "x must have ", num_features_,
                   " features, got ", features.features());
  const EnsembleArrays& a = arrays_;
  const int64_t rows = features.rows(), outputs = a.num_outputs, trees = a.tree_output.size(0);
  const Tensor weights = weights_of(kForest, weight, rows);
  const RowSampler sampler(weights.defined() ? weights.const_data_ptr<double>() : nullptr, rows);
  const int64_t draws = options_.max_samples > 0 ? options_.max_samples : rows;
  // Which rows each tree drew, a bit each.
  const int64_t words = ceil_div(rows, 64);
  std::vector<uint64_t> drawn(size_t(trees * words), 0);
  at::parallel_for(0, trees, 1, [&](int64_t first, int64_t last) {
    std::vector<int32_t> counts;
    for (int64_t t = first; t < last; ++t) {
      counts.assign(size_t(rows), 0);
      sampler.draw(draws, uint32_t(t), uint64_t(options_.seed), counts.data());
      uint64_t* bits = drawn.data() + t * words;
      for (int64_t row = 0; row < rows; ++row) {
        bits[row / 64] |= uint64_t(counts[size_t(row)] > 0) << (row % 64);
      }
    }
  });
  Tensor out = at::zeros({rows, outputs}, at::kDouble);
  const auto *feature = a.feature.const_data_ptr<int32_t>(),
             *left = a.left.const_data_ptr<int32_t>(), *right = a.right.const_data_ptr<int32_t>();
  const auto *threshold = a.threshold.const_data_ptr<float>(),
             *leaf = a.value.const_data_ptr<float>();
  const auto* default_left = a.default_left.const_data_ptr<bool>();
  const auto* begin_of = a.tree_ptr.const_data_ptr<int64_t>();
  auto* all_sums = out.mutable_data_ptr<double>();
  constexpr int64_t kRows = 64;  // by a thread at once, at least
  features.for_rows([&](int64_t first_row, const Tensor& block) {
    const Tensor values = block.to(at::kFloat).contiguous();
    const auto* value = values.const_data_ptr<float>();
    at::parallel_for(0, block.size(0), kRows, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> asked(size_t(end - begin), 0);
      double* sums = all_sums + first_row * outputs;
      for (int64_t t = 0; t < trees; ++t) {
        const uint64_t* bits = drawn.data() + t * words;
        for (int64_t row = begin; row < end; ++row) {
          const int64_t place = first_row + row;
          if (bits[place / 64] >> (place % 64) & 1) continue;
          int64_t node = begin_of[t];
          while (left[node] >= 0) {
            const float v = value[row * num_features_ + feature[node]];
            const bool goes_left = std::isnan(v) ? default_left[node] : v < threshold[node];
            node = begin_of[t] + (goes_left ? left[node] : right[node]);
          }
          ++asked[size_t(row - begin)];
          for (int64_t o = 0; o < outputs; ++o) {
            sums[row * outputs + o] += double(leaf[node * outputs + o]);
          }
        }
      }
      for (int64_t row = begin; row < end; ++row) {
        const int64_t count = asked[size_t(row - begin)];
        const double share = double(trees) / double(count);
        for (int64_t o = 0; o < outputs; ++o) {
          double& sum = sums[row * outputs + o];
          sum = count > 0 ? sum * share : std::numeric_limits<double>::quiet_NaN();
        }
      }
    });
  });
  return out;
}

}  // namespace tilewright::trees
