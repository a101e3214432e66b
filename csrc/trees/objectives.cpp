#include "tilewright/trees/objectives.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/ranking.h"
#include "tilewright/trees/refuse_rows.h"
#include "tilewright/trees/statistics.h"

namespace tilewright::trees {
namespace {

using at::Tensor;
using Pair = std::pair<Tensor, Tensor>;

// Losses of each column of the labels by itself.
class ByColumn : public Objective {
 public:
  void set_targets(int64_t targets) override { outputs_ = targets_ = targets; }
};

class SquaredError : public ByColumn {
 public:
  double metric(const Tensor& scores, const Tensor& labels, const Tensor& weights) const override {
    return std::sqrt(ordered_mean((scores - labels).square(), weights));
  }
  Tensor base_score(const Tensor& labels, const Tensor& weights) const override {
    return by_column(labels, [&](const Tensor& y) { return ordered_mean(y, weights); });
  }

 protected:
  const char* metric_name() const override { return "rmse"; }
  Pair derivatives(const Tensor& scores, const Tensor& labels) const override {
    return {scores - labels, at::ones_like(scores)};
  }
};

// max(alpha r, (alpha - 1) r) of residuals r = y - s. Its hessian is 0, so trees are grown with 1
// in its place and leaves answer with a quantile of their residuals.
class Quantile : public ByColumn {
 public:
  Quantile(double alpha, double factor) : alpha_(alpha), factor_(factor) {
    TILEWRIGHT_CHECK(kTrees, alpha > 0 && alpha < 1, "the quantile must lie in (0, 1), got ",
                     alpha);
  }
  double leaf_quantile() const override { return alpha_; }
  double metric(const Tensor& scores, const Tensor& labels, const Tensor& weights) const override {
    const Tensor rest = labels - scores;
    return factor_ * ordered_mean(at::maximum(rest * alpha_, rest * (alpha_ - 1)), weights);
  }
  Tensor base_score(const Tensor& labels, const Tensor& weights) const override {
    return by_column(labels,
                     [&](const Tensor& y) { return weighted_quantile(y, weights, alpha_); });
  }

 protected:
  const char* metric_name() const override { return factor_ == 2 ? "mae" : "loss"; }
  Pair derivatives(const Tensor& scores, const Tensor& labels) const override {
    return {at::where(scores >= labels, 1 - alpha_, -alpha_).to(scores.scalar_type()),
            at::ones_like(scores)};
  }

 private:
  double alpha_, factor_;
};

// sqrt-like: slope^2 (sqrt(1 + (r / slope)^2) - 1).
class PseudoHuber : public SquaredError {
 public:
  explicit PseudoHuber(double slope) : slope_(slope) {
    TILEWRIGHT_CHECK(kTrees, slope > 0, "huber's slope must be positive, got ", slope);
  }
  double metric(const Tensor& scores, const Tensor& labels, const Tensor& weights) const override {
    const Tensor root = ((scores - labels) / slope_).square().add(1).sqrt();
    return ordered_mean((root - 1) * (slope_ * slope_), weights);
  }
  Tensor base_score(const Tensor& labels, const Tensor& weights) const override {
    if (labels.dim() == 1) return Objective::base_score(labels, weights);
    return by_column(labels, [&](const Tensor& y) {
      return PseudoHuber(slope_).base_score(y, weights).item<double>();
    });
  }

 protected:
  const char* metric_name() const override { return "loss"; }
  Pair derivatives(const Tensor& scores, const Tensor& labels) const override {
    const Tensor rest = scores - labels, square = (rest / slope_).square().add(1);
    const Tensor root = square.sqrt();
    return {rest / root, (square * root).reciprocal()};
  }

 private:
  double slope_;
};

class Logistic : public Objective {
 public:
  void check_labels(const Tensor& labels) const override {
    const Tensor wrong = at::logical_not((labels == 0).logical_or(labels == 1));
    refuse_rows(kTrees, "y must be 0 or 1", wrong, labels);
  }
  Tensor base_score(const Tensor& labels, const Tensor& weights) const override {
    const double p = std::min(std::max(ordered_mean(labels, weights), 1e-16), 1 - 1e-7);
    return at::full({1}, std::log(p / (1 - p)), at::kFloat);
  }
  std::string link() const override { return "sigmoid"; }
  double metric(const Tensor& scores, const Tensor& labels, const Tensor& weights) const override {
    return ordered_mean(at::softplus(scores[0]) - labels * scores[0], weights);
  }

 protected:
  const char* metric_name() const override { return "logloss"; }
  Pair derivatives(const Tensor& scores, const Tensor& labels) const override {
    const Tensor p = scores.sigmoid();
    return {p - labels, (p * (1 - p)).clamp_min_(kLeastHessian)};
  }
};

class Softmax : public Objective {
 public:
  explicit Softmax(int64_t classes) {
    TILEWRIGHT_CHECK(kTrees, classes >= 2, "softmax needs num_class of at least 2, got ", classes);
    outputs_ = classes;
  }
  void check_labels(const Tensor& labels) const override {
    const Tensor outside = (labels < 0).logical_or(labels >= double(outputs_));
    refuse_rows(kTrees, "y must be a class", outside.logical_or(labels != labels.floor()), labels);
  }
  int64_t least_rows() const override { return outputs_; }
  Tensor base_score(const Tensor& labels, const Tensor& weights) const override {
    const Tensor counts =
        at::bincount(
            labels.to(at::kLong),
            weights.defined() ? std::optional<Tensor>(weights.to(at::kDouble)) : std::nullopt,
            outputs_)
            .to(at::kDouble);
    const Tensor prior = (counts / counts.sum()).clamp_min(1e-16).log();
    return (prior - prior.mean()).to(at::kFloat);
  }
  std::string link() const override { return "softmax"; }
  double metric(const Tensor& scores, const Tensor& labels, const Tensor& weights) const override {
    const Tensor chosen = scores.log_softmax(0).gather(0, labels.to(at::kLong).unsqueeze(0))[0];
    return ordered_mean(-chosen, weights);
  }

 protected:
  const char* metric_name() const override { return "logloss"; }
  Pair derivatives(const Tensor& scores, const Tensor& labels) const override {
    const Tensor p = scores.softmax(0);
    const Tensor hessian = (p * (1 - p) * 2).clamp_min_(kLeastHessian);
    Tensor gradient = p;
    gradient.scatter_add_(0, labels.to(at::kLong).unsqueeze(0),
                          at::full({1, labels.size(0)}, -1, p.options()));
    return {gradient, hessian};
  }
};

// A log link; the variance of labels is mean^power.
class Tweedie : public ByColumn {
 public:
  // `max_delta_step`: Poisson's, whose hessians are those of scores that much greater: steps stay
  // finite where counts have a long tail. XGBoost's rule.
  explicit Tweedie(double power, double max_delta_step = 0)
      : power_(power), hessian_factor_(std::exp(max_delta_step)) {}
  void check_labels(const Tensor& labels) const override {
    // Several columns are (K, N).
    const Tensor y = labels.dim() == 2 ? labels.t() : labels;
    if (power_ >= 2) return refuse_rows(kTrees, "y must be positive", y <= 0, y);
    refuse_rows(kTrees, "y must not be negative", y < 0, y);
  }
  Tensor base_score(const Tensor& labels, const Tensor& weights) const override {
    return by_column(labels, [&](const Tensor& y) {
      return std::log(std::max(ordered_mean(y, weights), 1e-16));
    });
  }
  std::string link() const override { return "exp"; }
  // Half the mean deviance, without what does not depend on scores.
  double metric(const Tensor& scores, const Tensor& labels, const Tensor& weights) const override {
    return ordered_mean(term(scores, 2 - power_) - labels * term(scores, 1 - power_), weights);
  }

 protected:
  Pair derivatives(const Tensor& scores, const Tensor& labels) const override {
    const Tensor low = labels * (scores * (1 - power_)).exp();
    const Tensor high = (scores * (2 - power_)).exp();
    return {high - low, (high * (2 - power_) - low * (1 - power_)) * hessian_factor_};
  }

 private:
  // The integral of exp(power * s).
  static Tensor term(const Tensor& scores, double power) {
    return power == 0 ? scores : (scores * power).exp() / power;
  }
  double power_, hessian_factor_;
};

}  // namespace

std::shared_ptr<Objective> Objective::make(const std::string& name, int64_t num_class,
                                           double param) {
  if (name == "squared_error") return std::make_shared<SquaredError>();
  if (name == "absolute_error") return std::make_shared<Quantile>(0.5, 2.0);
  if (name == "quantile") return std::make_shared<Quantile>(param, 1.0);
  if (name == "huber") return std::make_shared<PseudoHuber>(param);
  if (name == "logistic") return std::make_shared<Logistic>();
  if (name == "softmax") return std::make_shared<Softmax>(num_class);
  if (name == "poisson") {
    TILEWRIGHT_CHECK(kTrees, param >= 0, "poisson's max_delta_step must not be negative, got ",
                     param);
    return std::make_shared<Tweedie>(1, param);
  }
  if (name == "gamma") return std::make_shared<Tweedie>(2);
  if (name == "tweedie") {
    TILEWRIGHT_CHECK(kTrees, param > 1 && param < 2,
                     "tweedie's power (alpha) must lie in (1, 2), got ", param);
    return std::make_shared<Tweedie>(param);
  }
  if (name == "lambdarank") return std::make_shared<LambdaRank>(RankingOptions{});
  TILEWRIGHT_CHECK(kTrees, false, "objective must be squared_error, absolute_error, quantile, ",
                   "huber, logistic, softmax, poisson, gamma, tweedie or lambdarank, got ", name);
}

}  // namespace tilewright::trees
