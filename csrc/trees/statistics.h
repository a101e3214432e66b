// Sums, means and quantiles. ATen's sums depend on the number of threads; these do not.
#pragma once
#include <ATen/core/Tensor.h>

namespace tilewright::trees {

// Of all values, float32 or float64, added up in float64.
double ordered_sum(const at::Tensor& values);
// Of values (N,), weighted where weights (N,) are defined.
double ordered_mean(const at::Tensor& values, const at::Tensor& weights);
// The same of quantiles: of float32 values, between 0 and 1.
double weighted_quantile(const at::Tensor& values, const at::Tensor& weights, double alpha);

}  // namespace tilewright::trees
