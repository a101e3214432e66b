// A loss of the caller's, differentiated by autograd.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "tilewright/core/check.h"
#include "tilewright/core/on_device.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/objectives.h"

namespace tilewright::trees {
namespace {

at::Tensor derivative(const at::Tensor& of, const at::Tensor& by, bool keep, bool create) {
  return torch::autograd::grad({of}, {by}, {}, keep, create, /*allow_unused=*/true)[0];
}

}  // namespace

CustomObjective::CustomObjective(Loss loss, int64_t outputs, double hessian_bound)
    : loss_(std::move(loss)), hessian_bound_(hessian_bound) {
  TILEWRIGHT_CHECK(kTrees, outputs >= 1, "a loss must have at least one output, got ", outputs);
  TILEWRIGHT_CHECK(kTrees, hessian_bound >= 0, "a bound of hessians must not be negative, got ",
                   hessian_bound);
  outputs_ = outputs;
}

void CustomObjective::set_targets(int64_t targets) {
  TILEWRIGHT_CHECK(kTrees, targets == 1 || targets == outputs_, "a loss of ", outputs_,
                   " outputs takes labels of 1 column or ", outputs_, ", got ", targets);
  targets_ = targets;
}

at::Tensor CustomObjective::losses(const at::Tensor& scores, const at::Tensor& labels) const {
  const int64_t rows = scores.size(0);
  const at::Tensor found =
      loss_(outputs_ == 1 ? scores.squeeze(1) : scores, labels.dim() == 2 ? labels.t() : labels);
  TILEWRIGHT_CHECK(kTrees, found.dim() == 1 && found.size(0) == rows,
                   "the loss must return one value for each row, (", rows, ",), got ",
                   shape_of(found));
  return found;
}

std::pair<at::Tensor, at::Tensor> CustomObjective::derivatives(const at::Tensor& scores,
                                                               const at::Tensor& labels) const {
  const at::AutoGradMode enabled(true);
  const at::Tensor by = scores.t().detach().clone().requires_grad_();  // (N, K)
  // torch's own losses take one dtype for both.
  const at::Tensor sum = losses(by, labels.to(by.scalar_type())).sum();
  TILEWRIGHT_CHECK(kTrees, is_on_device(sum) || !sum.isnan().item<bool>(),
                   "the loss is NaN for some row, at scores that the fit has come to");
  const bool second = hessian_bound_ == 0;
  const at::Tensor gradient =
      sum.requires_grad() ? derivative(sum, by, second, second) : at::Tensor();
  TILEWRIGHT_CHECK(kTrees, gradient.defined(),
                   "the loss must depend on the scores by torch functions");
  const at::Tensor first = gradient.detach().t().contiguous();
  if (!second) return {first, at::full_like(first, hessian_bound_)};
  at::Tensor hessian = at::empty_like(first);
  for (int64_t k = 0; k < outputs_; ++k) {
    const at::Tensor column = gradient.select(1, k).sum();
    const at::Tensor found = column.requires_grad()
                                 ? derivative(column, by, k + 1 < outputs_, /*create=*/false)
                                 : at::Tensor();
    TILEWRIGHT_CHECK(kTrees, found.defined(),
                     "the loss has no second derivative by the scores; name a bound (hessian)");
    hessian.select(0, k).copy_(found.select(1, k));
  }
  TILEWRIGHT_CHECK(
      kTrees, is_on_device(hessian) || hessian.numel() == 0 || hessian.max().item<double>() > 0,
      "no second derivative of the loss by the scores is positive; name a bound (hessian)");
  return {first, hessian.clamp_min_(kLeastHessian)};
}

double CustomObjective::metric(const at::Tensor& scores, const at::Tensor& labels,
                               const at::Tensor& weights) const {
  const at::NoGradGuard no_grad;
  const at::Tensor found = losses(scores.t(), labels).to(at::kDouble);
  if (!weights.defined()) return found.mean().item<double>();
  return ((found * weights).sum() / weights.sum()).item<double>();
}

}  // namespace tilewright::trees
