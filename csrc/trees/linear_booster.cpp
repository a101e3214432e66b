// Coordinate descent, one coordinate at a time, rows in parallel.
#include "tilewright/trees/linear_booster.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/booster_file.h"
#include "tilewright/trees/dataset.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/statistics.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr int64_t kLinearVersion = 1;
constexpr int64_t kRowsOfSums = 16384;    // rows whose sums are added up by one thread
constexpr int64_t kSumsAside = 8;         // sums side by side
constexpr double kLeastCurvature = 1e-5;  // XGBoost's: flatter coordinates stay

struct Sums {
  double slope, curvature;
};

// Sums of g x and h x^2, or of g and h where x is null. Chunks depend on the number of rows alone.
Sums sums_of(const double* g, const double* h, const float* x, int64_t rows) {
  const int64_t chunks = ceil_div(rows, kRowsOfSums);
  std::vector<Sums> parts(static_cast<size_t>(chunks));
  at::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      double slope[kSumsAside] = {}, curvature[kSumsAside] = {};
      const int64_t begin = c * kRowsOfSums, end = std::min(begin + kRowsOfSums, rows);
      const auto add = [&](int64_t row, int64_t lane) {
        const double value = x == nullptr ? 1 : double(x[row]);
        slope[lane] += g[row] * value;
        curvature[lane] += h[row] * value * value;
      };
      int64_t row = begin;
      for (; row + kSumsAside <= end; row += kSumsAside) {
        for (int64_t lane = 0; lane < kSumsAside; ++lane) add(row + lane, lane);
      }
      for (; row < end; ++row) add(row, row % kSumsAside);
      Sums& part = parts[size_t(c)];
      part = {0, 0};
      for (int64_t lane = 0; lane < kSumsAside; ++lane) {
        part.slope += slope[lane];
        part.curvature += curvature[lane];
      }
    }
  });
  Sums sum{0, 0};
  for (const Sums& part : parts) {
    sum.slope += part.slope;
    sum.curvature += part.curvature;
  }
  return sum;
}

// Gradients where a coordinate has moved by `step`.
void follow(double* g, const double* h, const float* x, double step, int64_t rows) {
  if (step == 0) return;
  at::parallel_for(0, rows, kRowsOfSums, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      g[row] += h[row] * (x == nullptr ? step : step * double(x[row]));
    }
  });
}

// How far the weight must move.
double weight_step(Sums sums, double weight, double l1, double l2) {
  if (sums.curvature < kLeastCurvature) return 0;
  const double slope = sums.slope + l2 * weight, curvature = sums.curvature + l2;
  if (weight - slope / curvature >= 0) return std::max(-(slope + l1) / curvature, -weight);
  return std::min(-(slope - l1) / curvature, -weight);
}

struct LinearModel {
  Tensor weight, bias;  // (K, F), (K,) float32
};

// (K, N): of columns (F, N).
Tensor scores_of(const LinearModel& model, const Tensor& base_score, const Tensor& columns) {
  const int64_t outputs = model.weight.size(0), features = model.weight.size(1);
  const int64_t rows = columns.size(1);
  Tensor scores = at::empty({outputs, rows}, at::kFloat);
  const auto* x = columns.const_data_ptr<float>();
  for (int64_t k = 0; k < outputs; ++k) {
    const Tensor own = model.weight[k];
    const auto* w = own.const_data_ptr<float>();
    const double first = model.bias[k].item<double>() + base_score[k].item<double>();
    auto* to = scores[k].mutable_data_ptr<float>();
    at::parallel_for(0, rows, kRowsOfSums, [&](int64_t begin, int64_t end) {
      std::vector<double> sums(size_t(end - begin), first);
      for (int64_t f = 0; f < features; ++f) {
        if (w[f] == 0) continue;
        for (int64_t row = begin; row < end; ++row) {
          sums[size_t(row - begin)] += double(w[f]) * double(x[f * rows + row]);
        }
      }
      std::copy(sums.begin(), sums.end(), to + begin);
    });
  }
  return scores;
}

void run_round(LinearModel& model, const Tensor& columns, const Tensor& gradients,
               const Tensor& hessians, const BoosterOptions& options, double total_weight) {
  const int64_t outputs = model.weight.size(0), features = model.weight.size(1);
  const int64_t rows = columns.size(1);
  const double rate = options.learning_rate;
  const double l1 = options.tree.rules.alpha * total_weight;
  const double l2 = options.tree.rules.lambda * total_weight;
  const auto* x = columns.const_data_ptr<float>();
  for (int64_t k = 0; k < outputs; ++k) {
    const Tensor gradient = gradients[k].to(at::kDouble).clone();
    const Tensor hessian = hessians[k].to(at::kDouble).contiguous();
    auto* g = gradient.mutable_data_ptr<double>();
    const auto* h = hessian.const_data_ptr<double>();
    auto* bias = model.bias.mutable_data_ptr<float>() + k;
    auto* weight = model.weight.mutable_data_ptr<float>() + k * features;
    const auto move = [&](float& what, double wanted, const float* column) {
      const float before = what;
      what = float(double(before) + rate * wanted);
      follow(g, h, column, double(what) - double(before), rows);
    };
    const Sums all = sums_of(g, h, nullptr, rows);
    if (all.curvature >= kLeastCurvature) move(*bias, -all.slope / all.curvature, nullptr);
    for (int64_t f = 0; f < features; ++f) {
      const float* column = x + f * rows;
      const Sums sums = sums_of(g, h, column, rows);
      move(weight[f], weight_step(sums, double(weight[f]), l1, l2), column);
    }
  }
}

}  // namespace

LinearBooster::LinearBooster(const BoosterOptions& options, std::shared_ptr<Objective> objective)
    : options_(options), objective_(std::move(objective)), own_objective_(objective_ != nullptr) {
  if (objective_ == nullptr) objective_ = objective_of(options);
  check_rounds(options);
  TILEWRIGHT_CHECK(kTrees, objective_->leaf_quantile() < 0,
                   "linear models cannot be boosted on absolute errors or quantiles, whose second "
                   "derivatives are 0");
  const auto& signs = options.tree.monotone;
  TILEWRIGHT_CHECK(kTrees, std::count(signs.begin(), signs.end(), 0) == int64_t(signs.size()),
                   "linear models know no monotone constraints");
}

void LinearBooster::fit(const Dataset& data, const FitOptions& how) {
  objective_->set_targets(targets_of(data.y));
  Measured training = checked("", data, *objective_);
  std::vector<Measured> evaluation =
      checked_evaluation(training, how.evaluation, *objective_, options_.early_stopping_rounds);
  TILEWRIGHT_CHECK(kTrees, !how.start.has_value(), "linear models do not go on from others");
  const int64_t outputs = objective_->outputs(), features = training.table.features();
  const Targets& targets = training.targets;
  objective_->set_queries(targets.queries);
  const Tensor base_score = objective_->base_score(targets.labels, targets.weights);
  const double total_weight =
      targets.weights.defined() ? ordered_sum(targets.weights) : double(training.table.rows());
  const Tensor columns = training.table.columns();
  TILEWRIGHT_CHECK(kTrees, !at::isinf(columns).any().item<bool>(),
                   "linear models take no infinite values in x");
  std::vector<Tensor> evaluation_columns;
  for (const Measured& set : evaluation) evaluation_columns.push_back(set.table.columns());
  Metrics metrics(how, *objective_, evaluation.size(), options_.early_stopping_rounds);
  LinearModel model{at::zeros({outputs, features}, at::kFloat), at::zeros({outputs}, at::kFloat)};
  LinearModel best = model;
  for (int64_t round = 0; round < options_.n_estimators; ++round) {
    training.scores = scores_of(model, base_score, columns);
    const auto [gradients, hessians] =
        objective_->gradients(training.scores, targets.labels, targets.weights);
    run_round(model, columns, gradients, hessians, options_, total_weight);
    for (size_t s = 0; s < evaluation.size(); ++s) {
      evaluation[s].scores = scores_of(model, base_score, evaluation_columns[s]);
    }
    metrics.measure(evaluation, objective_->link());
    if (metrics.best_round() == round) best = {model.weight.clone(), model.bias.clone()};
    const bool stopped = how.after_round && how.after_round(round, last_scores(evaluation));
    if (metrics.enough() || stopped) break;
  }
  weight_ = best.weight;
  bias_ = best.bias;
  base_score_ = base_score;
  history_ = metrics.history();
  metric_names_ = metrics.names();
  best_round_ = metrics.best_round();
}

Tensor LinearBooster::scores(const Tensor& x) const {
  TILEWRIGHT_CHECK(kTrees, weight_.defined(), "the model has not been fitted");
  TILEWRIGHT_CHECK(kTrees, x.dim() == 2 && x.size(1) == weight_.size(1), "x must have ",
                   weight_.size(1), " features, got ", shape_of(x));
  const LinearModel model{weight_, bias_};
  return scores_of(model, base_score_, InputTable("x", x).columns()).t().contiguous();
}

Tensor LinearBooster::predict(const Tensor& x) const {
  return apply_link(objective_->link(), scores(x).t());
}

void LinearBooster::save(const std::string& path) const {
  TILEWRIGHT_CHECK(kTrees, weight_.defined(), "the model has not been fitted");
  ModelFile file(kLinearBooster, kLinearVersion);
  put_booster(file, options_, *objective_, own_objective_);
  file.put("weight", weight_);
  file.put("bias", bias_);
  file.put("base_score", base_score_);
  file.put("best_round", best_round_);
  file.write(path);
}

LinearBooster LinearBooster::load(const std::string& path, std::shared_ptr<Objective> objective) {
  const ModelFile file = ModelFile::read(kLinearBooster, kLinearVersion, path);
  LinearBooster out = unfitted_booster<LinearBooster>(file, std::move(objective));
  take_targets(file, *out.objective_);
  out.weight_ = file.tensor("weight", at::kFloat, 2);
  out.bias_ = file.tensor("bias", at::kFloat, 1);
  out.base_score_ = file.tensor("base_score", at::kFloat, 1);
  const int64_t outputs = out.objective_->outputs();
  for (const char* name : {"weight", "bias", "base_score"}) {
    const Tensor value = file.tensor(name, at::kFloat, file.dim(name));
    if (value.size(0) != outputs) {
      file.fail(name, c10::str("must be of ", outputs, " outputs, got ", shape_of(value)));
    }
  }
  if (out.weight_.size(1) == 0) file.fail("weight", "must have features");
  out.best_round_ = file.whole("best_round", -1, std::numeric_limits<int64_t>::max());
  return out;
}

}  // namespace tilewright::trees
