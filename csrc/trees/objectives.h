// What boosting minimises: gradients and hessians of losses by scores, first scores, links.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>

#include "tilewright/core/export.h"

namespace tilewright::trees {

// Scores are (K, N) float32: K outputs, 1 but for softmax, of N rows.
class TILEWRIGHT_API Objective {
 public:
  virtual ~Objective() = default;
  // One of "squared_error", "logistic", "softmax", "poisson", "gamma", "tweedie", "huber". `param`
  // is Tweedie's variance power (between 1 and 2) and Huber's slope (pseudo-Huber, positive).
  static std::shared_ptr<Objective> make(const std::string& name, int64_t num_class, double param);

  int64_t outputs() const { return outputs_; }
  // labels: (N,) float32. An error names the first row whose label the loss does not take.
  virtual void check_labels(const at::Tensor& labels) const;
  // Gradients and hessians, (K, N) float32, or times weights (N,) where defined, float64.
  std::pair<at::Tensor, at::Tensor> gradients(const at::Tensor& scores, const at::Tensor& labels,
                                              const at::Tensor& weights) const;
  // What all rows score before the first tree, (K,) float32: XGBoost's rule.
  virtual at::Tensor base_score(const at::Tensor& labels, const at::Tensor& weights) const;
  // Scores (K, N) to predictions: the inverse of the link.
  virtual at::Tensor transform(const at::Tensor& scores) const { return scores; }
  // The weighted mean of the loss, or its root for squared errors.
  virtual double metric(const at::Tensor& scores, const at::Tensor& labels,
                        const at::Tensor& weights) const = 0;

 protected:
  virtual std::pair<at::Tensor, at::Tensor> derivatives(const at::Tensor& scores,
                                                        const at::Tensor& labels) const = 0;
  int64_t outputs_ = 1;
};

}  // namespace tilewright::trees
