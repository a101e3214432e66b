// The named metrics.
#include "tilewright/trees/metrics.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/trees/link.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/ranking.h"
#include "tilewright/trees/statistics.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

void check_one_column(const Targets& targets, const char* name) {
  TILEWRIGHT_CHECK(kTrees, targets.labels.dim() == 1, "the metric ", name,
                   " takes labels of one column, got ", targets.labels.size(0), " columns");
}

Tensor single(const Tensor& predictions, const char* name) {
  TILEWRIGHT_CHECK(kTrees, predictions.size(1) == 1, "the metric ", name,
                   " takes models of one output, got one of ", predictions.size(1));
  return predictions.select(1, 0);
}

// For metrics that walk through rows in order.
Targets on_cpu(const Targets& t) {
  return {t.labels.cpu(), t.weights.defined() ? t.weights.cpu() : t.weights, t.queries};
}

// The probability that the model gave to each row's class.
double log_loss(const Tensor&, const Tensor& predictions, const Targets& targets) {
  check_one_column(targets, "logloss");
  const Tensor p = predictions.to(at::kDouble);
  Tensor chosen;
  if (p.size(1) == 1) {
    chosen = at::where(targets.labels > 0.5, p.select(1, 0), 1 - p.select(1, 0));
  } else {
    chosen = p.gather(1, targets.labels.to(at::kLong).unsqueeze(1)).select(1, 0);
  }
  return ordered_mean(-chosen.clamp_min(1e-16).log(), targets.weights);
}

double error_share(const Tensor&, const Tensor& predictions, const Targets& targets) {
  check_one_column(targets, "error");
  const Tensor found = predictions.size(1) == 1 ? (predictions.select(1, 0) > 0.5).to(at::kLong)
                                                : predictions.argmax(1);
  return ordered_mean(found.ne(targets.labels.to(at::kLong)), targets.weights);
}

// The share of pairs of a row of class 1 and one of class 0 that the model orders well; pairs of
// equal predictions count half.
double area_under_curve(const Tensor& raw, const Tensor& predictions, const Targets& given) {
  check_one_column(given, "auc");
  (void)single(predictions, "auc");
  const Tensor scores = raw.cpu();
  const Targets targets = on_cpu(given);
  const Tensor order = std::get<1>(scores[0].sort(std::optional<bool>(true), /*dim=*/0));
  const Tensor ascending = scores[0].index_select(0, order).contiguous();
  const Tensor labels = targets.labels.index_select(0, order).contiguous();
  const Tensor weights = targets.weights.defined()
                             ? targets.weights.to(at::kDouble).index_select(0, order).contiguous()
                             : at::ones({labels.size(0)}, at::kDouble);
  const auto* s = ascending.const_data_ptr<float>();
  const auto* y = labels.const_data_ptr<float>();
  const auto* w = weights.const_data_ptr<double>();
  double zeros = 0, ones = 0, area = 0;  // what lies below so far
  for (int64_t i = 0, count = labels.size(0); i < count;) {
    double tied[2] = {0, 0};
    const float value = s[i];
    do {  // a score that is NaN equals none
      tied[y[i] > 0.5f] += w[i];
      ++i;
    } while (i < count && s[i] == value);
    area += tied[1] * (zeros + tied[0] / 2);
    zeros += tied[0];
    ones += tied[1];
  }
  TILEWRIGHT_CHECK(kTrees, zeros > 0 && ones > 0, "the metric auc needs rows of both classes");
  return area / (zeros * ones);
}

Metric::Value of_residuals(const char* name, bool squared) {
  return [=](const Tensor&, const Tensor& predictions, const Targets& targets) {
    const Tensor found = targets.labels.dim() == 2 ? predictions.t() : single(predictions, name);
    const Tensor rest = found.to(at::kDouble) - targets.labels;
    return squared ? std::sqrt(ordered_mean(rest.square(), targets.weights))
                   : ordered_mean(rest.abs(), targets.weights);
  };
}

// "ndcg@10" to 10, "ndcg" to 0; -1 for other names.
int64_t cut_off_of(const std::string& name) {
  if (name == "ndcg") return 0;
  if (name.rfind("ndcg@", 0) != 0 || name.size() == 5 || name.size() > 14) return -1;
  const std::string digits = name.substr(5);
  if (!std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return -1;
  }
  const int64_t at = std::stoll(digits);
  return at > 0 ? at : -1;
}

}  // namespace

Metric make_metric(const std::string& name, bool exp_gain) {
  const auto lower_is_better = [&](const Metric::Value& value) -> Metric {
    return {name, false,
            [value](const Tensor& scores, const Tensor& predictions, const Targets& t) {
              return serially([&] { return value(scores, predictions, t); });
            }};
  };
  if (name == "rmse") return lower_is_better(of_residuals("rmse", true));
  if (name == "mae") return lower_is_better(of_residuals("mae", false));
  if (name == "logloss") return lower_is_better(log_loss);
  if (name == "error") return lower_is_better(error_share);
  if (name == "auc") return {name, true, area_under_curve};
  const int64_t at = cut_off_of(name);
  TILEWRIGHT_CHECK(kTrees, at >= 0,
                   "a metric must be rmse, mae, logloss, error, auc, ndcg or ndcg@k, got ", name);
  return {name, true, [at, exp_gain](const Tensor& scores, const Tensor&, const Targets& targets) {
            check_one_column(targets, "ndcg");
            return ndcg(scores[0].cpu(), on_cpu(targets), at, exp_gain);
          }};
}

Tensor apply_link(const std::string& link, const Tensor& scores) {
  return serially([&] { return behind_link(link, scores.t()); });
}

}  // namespace tilewright::trees
