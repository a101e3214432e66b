// What boosting minimises: gradients and hessians of losses by scores, first scores, links.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "tilewright/core/export.h"
#include "tilewright/trees/metrics.h"

namespace tilewright::trees {

// Second derivatives below it, 0 among them, count as this.
inline constexpr double kLeastHessian = 1e-16;

// Scores are (K, N) float32: K outputs of N rows. Softmax has one for each class, other losses one
// for each column of the labels.
class TILEWRIGHT_API Objective {
 public:
  virtual ~Objective() = default;
  // One of "squared_error", "absolute_error", "quantile", "huber" (pseudo-Huber), "logistic",
  // "softmax", "poisson", "gamma", "tweedie", "lambdarank" (with LambdaRank's defaults). `param` is
  // the quantile (between 0 and 1), Huber's slope (positive), Tweedie's variance power (between 1
  // and 2), Poisson's max_delta_step (0: none), whose exponential hessians are multiplied by.
  static std::shared_ptr<Objective> make(const std::string& name, int64_t num_class, double param);

  int64_t outputs() const { return outputs_; }
  // How many columns labels have. Losses of each column by itself take any number, and have as many
  // outputs; others are an error.
  int64_t targets() const { return targets_; }
  virtual void set_targets(int64_t targets);
  // labels: (N,) float32, or (K, N) of several columns. An error names the first row whose label
  // the loss does not take.
  virtual void check_labels(const at::Tensor& labels) const;
  // How many rows a training set must have.
  virtual int64_t least_rows() const { return 1; }
  // Of ranking: which rows belong to one query, (Q + 1,) int64 as Targets has it; set before
  // gradients are asked for.
  virtual bool takes_queries() const { return false; }
  virtual void set_queries(const at::Tensor&) {}
  // Gradients and hessians, (K, N) float32 or float64, times weights (N,) where defined. Those of
  // many rows take the memory of `earlier` ones of the same scores, where there are such.
  using Gradients = std::pair<at::Tensor, at::Tensor>;
  Gradients gradients(const at::Tensor& scores, const at::Tensor& labels, const at::Tensor& weights,
                      const Gradients& earlier = {}) const;
  // What all rows score before the first tree, (K,) float32: XGBoost's rule.
  virtual at::Tensor base_score(const at::Tensor& labels, const at::Tensor& weights) const;
  // Whether a fit on CUDA asks for it there: of a loss that may hold tensors. Others are asked on
  // the CPU, whose sums are those of a fit there.
  virtual bool asks_on_device() const { return false; }
  // From scores to predictions: "identity", "sigmoid", "softmax" or "exp".
  virtual std::string link() const { return "identity"; }
  // What a leaf answers is this quantile of its residuals; negative: -G / (H + lambda).
  virtual double leaf_quantile() const { return -1; }
  // The weighted mean of the loss, or its root for squared errors.
  virtual double metric(const at::Tensor& scores, const at::Tensor& labels,
                        const at::Tensor& weights) const = 0;
  // The same as a Metric: "rmse", "mae", "logloss", "ndcg@k", else "loss". The objective must
  // outlive it.
  virtual Metric default_metric() const;

 protected:
  virtual const char* metric_name() const { return "loss"; }
  virtual std::pair<at::Tensor, at::Tensor> derivatives(const at::Tensor& scores,
                                                        const at::Tensor& labels) const = 0;
  // Whether a row's derivatives ask for no other row.
  virtual bool rows_are_apart() const { return true; }
  int64_t outputs_ = 1, targets_ = 1;

 private:
  std::pair<at::Tensor, at::Tensor> weighted_derivatives(const at::Tensor& scores,
                                                         const at::Tensor& labels,
                                                         const at::Tensor& weights) const;
};

// A loss of the caller's: gradients by autograd, hessians by one more backward pass an output, or a
// bound on them that the caller names.
class TILEWRIGHT_API CustomObjective : public Objective {
 public:
  // Scores, (N,) or (N, K) where K > 1, and labels, (N,) or (N, K), to losses (N,).
  using Loss = std::function<at::Tensor(const at::Tensor& scores, const at::Tensor& labels)>;

  // `hessian_bound`: what all hessians are taken to be; 0: the second derivatives, at least 1e-16.
  // That none is positive is an error on the CPU; on CUDA, where looking would wait for the device,
  // such a tree has no split.
  CustomObjective(Loss loss, int64_t outputs, double hessian_bound = 0);
  bool asks_on_device() const override { return true; }
  double metric(const at::Tensor& scores, const at::Tensor& labels,
                const at::Tensor& weights) const override;
  void set_targets(int64_t targets) override;

 protected:
  std::pair<at::Tensor, at::Tensor> derivatives(const at::Tensor& scores,
                                                const at::Tensor& labels) const override;
  bool rows_are_apart() const override { return false; }  // for all that is known of the function

 private:
  at::Tensor losses(const at::Tensor& scores, const at::Tensor& labels) const;
  Loss loss_;
  double hessian_bound_;
};

}  // namespace tilewright::trees
