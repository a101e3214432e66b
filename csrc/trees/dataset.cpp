// Checks of tables and options, and metrics by round.
#include "tilewright/trees/dataset.h"

#include <ATen/ATen.h>

#include <cmath>
#include <type_traits>

#include "tilewright/core/check.h"
#include "tilewright/trees/booster_options.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/refuse_rows.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

// (N,) float32, or of several columns (K, N).
Tensor labels_of(const std::string& name, const Tensor& y, int64_t rows, int64_t targets) {
  const Tensor labels = y.to(at::kFloat);
  if (targets == 1) {
    return (labels.dim() == 2 && labels.size(1) == 1 ? labels.squeeze(1) : labels).contiguous();
  }
  TILEWRIGHT_CHECK(kTrees, labels.dim() == 2 && labels.size(0) == rows && labels.size(1) == targets,
                   name, " must have shape (", rows, ", ", targets, "), got ", shape_of(y));
  return labels.t().contiguous();
}

void check_rows(const std::string& name, const Tensor& values, int64_t rows) {
  TILEWRIGHT_CHECK(kTrees, values.dim() == 1 && values.size(0) == rows, name, " must have shape (",
                   rows, ",), as many as x has rows, got ", shape_of(values));
  refuse_rows(kTrees, name + " must be finite", at::isfinite(values).logical_not(), values);
}

// (Q,) sizes to (Q + 1,) bounds.
Tensor bounds_of(const std::string& owner, const Tensor& group, int64_t rows) {
  if (!group.defined()) return at::tensor({int64_t(0), rows}, at::kLong);
  TILEWRIGHT_CHECK(
      kTrees,
      group.dim() == 1 && at::isIntegralType(group.scalar_type(), false) && group.numel() > 0,
      owner, "group must hold the sizes of queries as integers, (Q,), got ", group.scalar_type(),
      " ", shape_of(group));
  const Tensor sizes = group.to(at::kCPU, at::kLong).contiguous();
  const auto* from = sizes.const_data_ptr<int64_t>();
  Tensor bounds = at::zeros({group.numel() + 1}, at::kLong);
  auto* to = bounds.mutable_data_ptr<int64_t>();
  for (int64_t q = 0; q < group.numel(); ++q) {
    TILEWRIGHT_CHECK(kTrees, from[q] >= 1 && from[q] <= rows - to[q], owner,
                     "group must add up to ", rows, " rows in queries of at least 1; query ", q,
                     " has ", from[q], ", which leaves ", rows - to[q]);
    to[q + 1] = to[q] + from[q];
  }
  TILEWRIGHT_CHECK(kTrees, to[group.numel()] == rows, owner, "group must add up to ", rows,
                   " rows, got ", to[group.numel()]);
  return bounds;
}

}  // namespace

std::shared_ptr<Objective> objective_of(const BoosterOptions& options) {
  if (options.objective == "lambdarank") return std::make_shared<LambdaRank>(options.ranking);
  const bool poisson = options.objective == "poisson";
  return Objective::make(options.objective, options.num_class,
                         poisson ? max_delta_step_of(options) : options.objective_param);
}

double max_delta_step_of(const BoosterOptions& options) {
  const double given = options.tree.rules.max_delta_step;
  return given >= 0 ? given : options.objective == "poisson" ? 0.7 : 0;
}

void check_rounds(const BoosterOptions& options) {
  TILEWRIGHT_CHECK(kTrees, options.n_estimators >= 1, "n_estimators must be positive, got ",
                   options.n_estimators);
  TILEWRIGHT_CHECK(kTrees, options.early_stopping_rounds >= 0,
                   "early_stopping_rounds must not be negative, got ",
                   options.early_stopping_rounds);
  for_each_option(options, [](const char* name, const auto& value) {
    if constexpr (std::is_same_v<decltype(value), const double&>) {
      TILEWRIGHT_CHECK(kTrees, std::isfinite(value), name, " must be finite, got ", value);
    }
  });
  TILEWRIGHT_CHECK(kTrees, options.learning_rate > 0, "learning_rate must be positive, got ",
                   options.learning_rate);
  const TreeRegularisation& rules = options.tree.rules;
  TILEWRIGHT_CHECK(
      kTrees,
      rules.lambda >= 0 && rules.alpha >= 0 && rules.gamma >= 0 && rules.min_child_weight >= 0,
      "reg_lambda, reg_alpha, gamma and min_child_weight must not be negative");
}

int64_t targets_of(const Tensor& y) {
  return y.defined() && y.dim() == 2 && y.size(1) > 1 ? y.size(1) : 1;
}

Measured checked(const std::string& owner, const Dataset& data, const Objective& objective) {
  Measured set{InputTable((owner + "x").c_str(), data.x), {}, {}};
  const int64_t rows = set.table.rows();
  TILEWRIGHT_CHECK(kTrees, rows > 0 && set.table.features() > 0, owner, "x must not be empty, got ",
                   shape_of(data.x));
  check_given(kTrees, "y", data.y);
  const at::Device device = set.table.device();
  set.targets.labels = labels_of(owner + "y", data.y.to(device), rows, objective.targets());
  if (objective.targets() == 1) {
    check_rows(owner + "y", set.targets.labels, rows);
  } else {
    const Tensor rows_first = set.targets.labels.t();
    refuse_rows(kTrees, owner + "y must be finite", at::isfinite(rows_first).logical_not(),
                rows_first);
  }
  objective.check_labels(set.targets.labels);
  if (data.weight.defined()) {
    set.targets.weights = data.weight.to(device, at::kFloat).contiguous();
    check_rows(owner + "sample_weight", set.targets.weights, rows);
    TILEWRIGHT_CHECK(
        kTrees,
        set.targets.weights.min().item<float>() >= 0 && set.targets.weights.max().item<float>() > 0,
        owner, "sample_weight must not be negative, nor all 0");
  }
  TILEWRIGHT_CHECK(kTrees, !data.group.defined() || objective.takes_queries(), owner,
                   "group is for ranking alone");
  if (objective.takes_queries()) set.targets.queries = bounds_of(owner, data.group, rows);
  return set;
}

std::vector<Measured> checked_evaluation(const Measured& training, const std::vector<Dataset>& sets,
                                         const Objective& objective,
                                         int64_t early_stopping_rounds) {
  const int64_t features = training.table.features();
  TILEWRIGHT_CHECK(kTrees, training.table.rows() >= objective.least_rows(),
                   "x must have at least as many rows as there are classes, ",
                   objective.least_rows(), ", got ", training.table.rows());
  TILEWRIGHT_CHECK(kTrees, !sets.empty() || early_stopping_rounds == 0,
                   "early_stopping_rounds needs an evaluation set");
  std::vector<Measured> evaluation;
  for (const Dataset& set : sets) {
    evaluation.push_back(checked("the evaluation set's ", set, objective));
    TILEWRIGHT_CHECK(kTrees, evaluation.back().table.features() == features,
                     "the evaluation set must have ", features, " features, got ", shape_of(set.x));
  }
  return evaluation;
}

Tensor last_scores(const std::vector<Measured>& evaluation) {
  return evaluation.empty() ? Tensor() : evaluation.back().scores;
}

Metrics::Metrics(const FitOptions& how, const Objective& objective, size_t sets, int64_t patience)
    : metrics_(how.metrics), patience_(patience) {
  if (metrics_.empty()) metrics_.push_back(objective.default_metric());
  history_.assign(sets, std::vector<std::vector<double>>(metrics_.size()));
}

void Metrics::measure(const std::vector<Measured>& evaluation, const std::string& link) {
  ++round_;
  for (size_t s = 0; s < evaluation.size(); ++s) {
    const Measured& set = evaluation[s];
    const Tensor predictions = apply_link(link, set.scores);
    for (size_t m = 0; m < metrics_.size(); ++m) {
      history_[s][m].push_back(metrics_[m].value(set.scores, predictions, set.targets));
    }
  }
  if (patience_ == 0 || best_round_ < 0) {
    best_round_ = round_;
    return;
  }
  const std::vector<double>& watched = history_.back().back();
  if (metrics_.back().is_better(watched.back(), watched[size_t(best_round_)])) {
    best_round_ = round_;
  }
}

std::vector<std::string> Metrics::names() const {
  std::vector<std::string> names;
  for (const Metric& metric : metrics_) names.push_back(metric.name);
  return names;
}

}  // namespace tilewright::trees
