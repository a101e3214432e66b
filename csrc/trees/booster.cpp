#include "tilewright/trees/booster.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "tilewright/core/check.h"
#include "tilewright/trees/categories.h"
#include "tilewright/trees/feature_args.h"
#include "tilewright/trees/feature_cuts.h"
#include "tilewright/trees/predict_trees.h"
#include "tilewright/trees/tree_sampling.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr const char* kOp = "trees";

Tensor raw_scores(const Tensor& x, const EnsembleArrays& a) {
  return predict_trees(x, a.feature, a.threshold, a.left, a.right, a.default_left, a.value,
                       a.tree_ptr, a.tree_output, a.num_outputs, a.given(a.category_ptr),
                       a.given(a.categories));
}

void check_rows(const char* name, const Tensor& values, int64_t rows) {
  TILEWRIGHT_CHECK(kOp, values.dim() == 1 && values.size(0) == rows, name, " must have shape (",
                   rows, ",), as many as x has rows, got ", shape_of(values));
  const Tensor bad = at::isfinite(values).logical_not();
  if (!bad.any().item<bool>()) return;
  const int64_t row = bad.nonzero()[0].item<int64_t>();
  TILEWRIGHT_CHECK(kOp, false, name, " must be finite; that of row ", row, " is ",
                   values[row].item<double>());
}

// The rows of a round; empty for all.
std::vector<int32_t> rows_of_round(const BoosterOptions& options, int64_t rows, int64_t round) {
  constexpr int64_t kChunk = 65536;
  std::vector<int32_t> out;
  if (options.subsample >= 1) return out;
  std::vector<std::vector<int32_t>> parts(size_t(ceil_div(rows, kChunk)));
  at::parallel_for(0, int64_t(parts.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      draw_rows(c * kChunk, std::min((c + 1) * kChunk, rows), options.subsample, uint32_t(round),
                uint64_t(options.seed), parts[size_t(c)]);
    }
  });
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  if (out.empty()) out.push_back(0);
  return out;
}

}  // namespace

Booster::Booster(const BoosterOptions& options, std::shared_ptr<Objective> objective)
    : options_(options), objective_(std::move(objective)) {
  if (objective_ == nullptr) {
    objective_ = Objective::make(options.objective, options.num_class, options.objective_param);
  }
  const auto share = [](const char* name, double value) {
    TILEWRIGHT_CHECK(kOp, value > 0 && value <= 1, name, " must lie in (0, 1], got ", value);
  };
  share("subsample", options.subsample);
  share("colsample_bytree", options.tree.colsample_bytree);
  share("colsample_bylevel", options.tree.colsample_bylevel);
  share("colsample_bynode", options.tree.colsample_bynode);
  TILEWRIGHT_CHECK(kOp, options.n_estimators >= 1, "n_estimators must be positive, got ",
                   options.n_estimators);
  TILEWRIGHT_CHECK(kOp, options.learning_rate > 0, "learning_rate must be positive, got ",
                   options.learning_rate);
  TILEWRIGHT_CHECK(kOp, options.tree.max_depth >= 0 && options.tree.max_leaves >= 0,
                   "max_depth and max_leaves must not be negative, got ", options.tree.max_depth,
                   " and ", options.tree.max_leaves);
  const TreeRegularisation& rules = options.tree.rules;
  TILEWRIGHT_CHECK(kOp,
                   rules.lambda >= 0 && rules.alpha >= 0 && rules.gamma >= 0 &&
                       rules.min_child_weight >= 0 && rules.max_delta_step >= 0,
                   "reg_lambda, reg_alpha, gamma, min_child_weight and max_delta_step must not be ",
                   "negative");
}

void Booster::fit(const Tensor& x, const Tensor& y, const Tensor& weight, const Tensor& eval_x,
                  const Tensor& eval_y, const RoundCallback& after_round) {
  check_floating(kOp, "x", x);
  check_shape(kOp, "x", x, "(N, F)", 2);
  TILEWRIGHT_CHECK(kOp, x.is_cpu(), "fits on the CPU, got x on ", x.device());
  const int64_t rows = x.size(0), features = x.size(1);
  TILEWRIGHT_CHECK(kOp, rows > 0 && features > 0, "x must not be empty, got ", shape_of(x));
  TILEWRIGHT_CHECK(
      kOp, options_.tree.monotone.empty() || int64_t(options_.tree.monotone.size()) == features,
      "monotone constraints must be ", features, ", as many as x has features, got ",
      options_.tree.monotone.size());
  const auto& categorical = options_.tree.categorical;
  TILEWRIGHT_CHECK(kOp, categorical.empty() || int64_t(categorical.size()) == features,
                   "categorical must be ", features, ", as many as x has features, got ",
                   categorical.size());
  for (size_t f = 0; f < categorical.size() && !options_.tree.monotone.empty(); ++f) {
    TILEWRIGHT_CHECK(kOp, !categorical[f] || options_.tree.monotone[f] == 0, "column ", f,
                     " holds categories: its answers cannot be monotone");
  }
  const Tensor labels = y.to(at::kFloat).contiguous();
  check_rows("y", labels, rows);
  objective_->check_labels(labels);
  Tensor weights;
  if (weight.defined()) {
    weights = weight.to(at::kFloat).contiguous();
    check_rows("sample_weight", weights, rows);
    TILEWRIGHT_CHECK(kOp, weights.min().item<float>() >= 0 && weights.max().item<float>() > 0,
                     "sample_weight must not be negative, nor all 0");
  }
  Tensor eval_labels;
  TILEWRIGHT_CHECK(kOp, eval_x.defined() || options_.early_stopping_rounds == 0,
                   "early_stopping_rounds needs an evaluation set");
  TILEWRIGHT_CHECK(kOp, eval_x.defined() == eval_y.defined(),
                   "an evaluation set is x and y, got one of them");
  if (eval_x.defined()) {
    TILEWRIGHT_CHECK(kOp, eval_x.dim() == 2 && eval_x.size(1) == features,
                     "the evaluation set must have ", features, " features, got ",
                     shape_of(eval_x));
    eval_labels = eval_y.to(at::kFloat).contiguous();
    check_rows("the evaluation set's y", eval_labels, eval_x.size(0));
    objective_->check_labels(eval_labels);
  }
  const auto [plain_cuts, plain_count] = feature_cuts(
      x, weights.defined() ? std::optional<Tensor>(weights) : std::nullopt, options_.max_bin);
  const auto [cuts, count] = category_cuts(x, plain_cuts, plain_count, options_.tree.categorical);
  if (eval_x.defined()) check_known_categories(eval_x, count, options_.tree.categorical);
  TreeGrower grower(quantize_features(x, cuts, count), count + 1, codes_of(options_.max_bin));
  const int64_t outputs = objective_->outputs();
  const Tensor base_score = objective_->base_score(labels, weights);
  ArraysBuilder builder(outputs);
  Tensor scores = base_score.unsqueeze(1).repeat({1, rows});
  Tensor eval_scores;
  if (eval_x.defined()) eval_scores = base_score.unsqueeze(1).repeat({1, eval_x.size(0)});
  std::vector<double> metrics;
  int64_t best_round = -1;
  TreeOptions tree_options = options_.tree;
  tree_options.seed = uint64_t(options_.seed);
  for (int64_t round = 0; round < options_.n_estimators; ++round) {
    const auto [gradients, hessians] = objective_->gradients(scores, labels, weights);
    const std::vector<int32_t> drawn_rows = rows_of_round(options_, rows, round);
    for (int64_t k = 0; k < outputs; ++k) {
      tree_options.tree = uint32_t(round * outputs + k);
      GrownTree grown = grower.grow(gradients[k], hessians[k], drawn_rows, tree_options);
      if (objective_->leaf_quantile() >= 0) {
        grower.answer_quantiles(grown, labels.const_data_ptr<float>(),
                                scores[k].const_data_ptr<float>(),
                                weights.defined() ? weights.const_data_ptr<float>() : nullptr,
                                objective_->leaf_quantile());
      }
      const auto answers = builder.add(grown, cuts, options_.learning_rate, k);
      grower.add_to_scores(grown, answers, scores[k].mutable_data_ptr<float>());
    }
    if (eval_x.defined()) {
      const EnsembleArrays last = builder.slice(round * outputs, (round + 1) * outputs);
      eval_scores += raw_scores(eval_x, last).t();
      metrics.push_back(objective_->metric(eval_scores, eval_labels, Tensor()));
      if (best_round < 0 || metrics.back() < metrics[size_t(best_round)]) best_round = round;
    }
    if (after_round && after_round(round, eval_scores)) break;
    const int64_t patience = options_.early_stopping_rounds;
    if (patience > 0 && round - best_round >= patience) break;
  }
  if (options_.early_stopping_rounds == 0) best_round = builder.trees() / outputs - 1;
  // Nothing of an earlier fit is touched before all has gone well.
  const EnsembleArrays a = builder.arrays((best_round + 1) * outputs);
  std::vector<Tensor> all{a.feature, a.threshold, a.left,        a.right,   a.default_left,
                          a.value,   a.tree_ptr,  a.tree_output, base_score};
  if (a.categories.defined()) all.insert(all.end(), {a.category_ptr, a.categories});
  ensemble_ = c10::make_intrusive<TreeEnsemble>(all, objective_->link(), features);
  bin_counts_ = count;
  arrays_ = a;
  metrics_ = metrics;
  best_round_ = best_round;
}

Tensor Booster::scores(const Tensor& x) const {
  const auto found = ensemble()->scores(x);
  check_known_categories(x, bin_counts_, options_.tree.categorical);
  return found;
}
Tensor Booster::predict(const Tensor& x) const {
  const auto found = ensemble()->predict(x);
  check_known_categories(x, bin_counts_, options_.tree.categorical);
  return found;
}

c10::intrusive_ptr<TreeEnsemble> Booster::ensemble() const {
  TILEWRIGHT_CHECK(kOp, ensemble_.defined(), "the model has not been fitted");
  return ensemble_;
}

}  // namespace tilewright::trees
